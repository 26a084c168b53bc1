/* Rego for CodeMirror: a tokenizer by line, enough to tell words of the language from the author's. */
import { StreamLanguage } from "../../vendor/codemirror/6.43.15/codemirror.js";

const KEYWORDS = new Set([
  "package", "import", "as", "default", "not", "some", "every", "in", "if", "contains", "else", "with",
]);
const ATOMS = new Set(["true", "false", "null"]);
const ROOTS = new Set(["input", "data"]);
// The rules whose messages are verdicts; see docs/policies.md.
const VERDICTS = new Set(["deny", "warn", "require_approval", "violation"]);
const OPEN = "([{";
const CLOSE = ")]}";
const OPERATOR = /^(:=|==|!=|<=|>=|[=<>+\-*/%&|])/;
const NUMBER = /^-?\d+(\.\d+)?([eE][+-]?\d+)?/;
const WORD = /^[A-Za-z_]\w*/;

/** The rest of a `"` string; Rego ends it with the line. */
function readString(stream) {
  let character = stream.next();
  while (character !== undefined && character !== '"') {
    if (character === "\\") stream.next();
    character = stream.next();
  }
  return "string";
}

/** The rest of a raw string, which may go on in the next line. */
function readRaw(stream, state) {
  state.isRaw = !stream.skipTo("`");
  if (state.isRaw) stream.skipToEnd();
  else stream.next();
  return "string";
}

function readWord(stream, state, { isHead, isField }) {
  const word = stream.match(WORD)[0];
  if (isField) return "propertyName";
  if (KEYWORDS.has(word)) {
    state.isPath = word === "package" || word === "import";
    return "keyword";
  }
  if (state.isPath) return "namespace";
  if (ATOMS.has(word)) return "atom";
  if (ROOTS.has(word)) return "variableName.special";
  if (isHead) return VERDICTS.has(word) ? "heading" : "variableName.definition";
  return stream.match(/^[\w.]*\(/, false) ? "variableName.function" : "variableName";
}

function token(stream, state) {
  if (state.isRaw) return readRaw(stream, state);
  if (stream.sol()) state.isPath = false;
  if (stream.eatSpace()) return null;
  const isHead = stream.column() === 0;
  const isField = state.isAfterDot && !state.isPath;
  state.isAfterDot = false;
  const character = stream.peek();
  if (character === "#") {
    stream.skipToEnd();
    return "comment";
  }
  if (character === '"') {
    stream.next();
    return readString(stream);
  }
  if (character === "`") {
    stream.next();
    return readRaw(stream, state);
  }
  if (stream.match(NUMBER)) return "number";
  if (WORD.test(stream.string.slice(stream.pos))) return readWord(stream, state, { isHead, isField });
  if (stream.match(OPERATOR)) return "operator";
  stream.next();
  if (character === ".") state.isAfterDot = true;
  if (OPEN.includes(character)) state.depth += 1;
  if (CLOSE.includes(character)) state.depth = Math.max(state.depth - 1, 0);
  return OPEN.includes(character) || CLOSE.includes(character) ? "bracket" : null;
}

export const rego = StreamLanguage.define({
  name: "rego",
  startState: () => ({ depth: 0, isRaw: false, isPath: false, isAfterDot: false }),
  token,
  indent: (state, after, context) => {
    const depth = CLOSE.includes(after.trimStart()[0] ?? " ") ? state.depth - 1 : state.depth;
    return Math.max(depth, 0) * context.unit;
  },
  languageData: {
    commentTokens: { line: "#" },
    closeBrackets: { brackets: ["(", "[", "{", '"', "`"] },
  },
});
