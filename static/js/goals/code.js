/* The YAML editor: CodeMirror over the form's text area, with each problem under what it is about. */
import {
  EditorState,
  EditorView,
  bracketMatching,
  defaultKeymap,
  drawSelection,
  highlightActiveLine,
  highlightActiveLineGutter,
  history,
  historyKeymap,
  indentUnit,
  keymap,
  lineNumbers,
  lintGutter,
  nextDiagnostic,
  search,
  searchKeymap,
  setDiagnostics,
} from "../../vendor/codemirror/6.43.15/codemirror.js";
import { look } from "../policies/look.js";
import { yaml } from "./yaml.js";

/** An editor in `host`; `changed` is called with the text, `submit` at Ctrl+Enter. */
export class CodeView {
  constructor(host, { text, changed, submit, label }) {
    // In a shadow root the styles of CodeMirror are a constructed sheet, which needs no exception
    // from the content security policy.
    const root = host.attachShadow({ mode: "open" });
    this.isQuiet = false;
    this.view = new EditorView({
      parent: root,
      root,
      state: EditorState.create({
        doc: text,
        extensions: [
          lineNumbers(),
          highlightActiveLineGutter(),
          history(),
          drawSelection(),
          highlightActiveLine(),
          bracketMatching(),
          search(),
          yaml,
          indentUnit.of("  "),
          EditorState.tabSize.of(2),
          EditorView.lineWrapping,
          lintGutter(),
          look,
          EditorView.contentAttributes.of({ "aria-label": label, "aria-describedby": "manifest-help" }),
          keymap.of([
            { key: "Ctrl-Enter", mac: "Cmd-Enter", run: () => submit() },
            { key: "F8", run: nextDiagnostic },
            ...searchKeymap,
            ...defaultKeymap,
            ...historyKeymap,
          ]),
          EditorView.updateListener.of((update) => {
            if (update.docChanged && !this.isQuiet) changed(update.state.doc.toString());
          }),
        ],
      }),
    });
    host.hidden = false;
  }

  /** Another text, changed from where it differs, so that the cursor and the history stay. */
  show(text) {
    const before = this.view.state.doc.toString();
    if (before === text) return;
    let start = 0;
    const least = Math.min(before.length, text.length);
    while (start < least && before[start] === text[start]) start += 1;
    let end = 0;
    while (end < least - start && before[before.length - 1 - end] === text[text.length - 1 - end]) end += 1;
    this.isQuiet = true;
    this.view.dispatch({
      changes: { from: start, to: before.length - end, insert: text.slice(start, text.length - end) },
    });
    this.isQuiet = false;
  }

  /** Underline each problem; those without a place stand at the first line. */
  mark(problems) {
    const { doc } = this.view.state;
    const ranges = problems.map((one) => {
      const line = doc.line(Math.min(Math.max(one.line, 1), doc.lines));
      const from = Math.min(line.from + Math.max(one.column - 1, 0), line.to);
      const to = Math.min(from + Math.max(one.length, 1), line.to);
      const start = from === to ? Math.max(line.from, from - 1) : from;
      return { from: start, to, severity: "error", message: one.message };
    });
    ranges.sort((one, other) => one.from - other.from);
    this.view.dispatch(setDiagnostics(this.view.state, ranges));
  }

  go(line, column) {
    const { doc } = this.view.state;
    const found = doc.line(Math.min(Math.max(line, 1), doc.lines));
    const anchor = Math.min(found.from + Math.max(column - 1, 0), found.to);
    this.view.dispatch({
      selection: { anchor },
      effects: EditorView.scrollIntoView(anchor, { y: "center" }),
    });
    this.view.focus();
  }

  focus() {
    this.view.focus();
  }
}
