/* YAML for CodeMirror: a tokenizer by line, enough to tell keys, values and comments apart. */
import { StreamLanguage } from "../../vendor/codemirror/6.43.15/codemirror.js";

const KEY = /^(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#:,[\]{}"'][^#:,[\]{}]*?)(?=\s*:(?:\s|$))/;
const DOUBLE = /^"(?:[^"\\]|\\.)*"?/;
const SINGLE = /^'(?:[^']|'')*'?/;
const NUMBER = /^[-+]?(?:0x[\da-fA-F]+|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?=\s*(?:[,}\]#]|$))/;
const ATOM = /^(?:true|false|null|~)(?=\s*(?:[,}\]#]|$))/i;
const PLAIN = /^[^\s,[\]{}#][^,[\]{}#]*/;

function token(stream) {
  if (stream.eatSpace()) return null;
  if (stream.peek() === "#") {
    stream.skipToEnd();
    return "comment";
  }
  if (stream.match(/^---|^\.\.\./)) return "keyword";
  if (stream.match(KEY)) return "variableName.definition";
  if (stream.match(DOUBLE) || stream.match(SINGLE)) return "string";
  if (stream.match(/^[[\]{},]/)) return "bracket";
  if (stream.match(/^[:?|>-](?=\s|$)/)) return "operator";
  if (stream.match(NUMBER)) return "number";
  if (stream.match(ATOM)) return "atom";
  if (stream.match(PLAIN)) return null;
  stream.next();
  return null;
}

export const yaml = StreamLanguage.define({
  name: "yaml",
  startState: () => ({}),
  token,
  languageData: { commentTokens: { line: "#" } },
});
