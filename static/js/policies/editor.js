/* The policy editor: one CodeMirror over the form's text areas, checked by the server as one types. */
import {
  Compartment,
  EditorState,
  EditorView,
  bracketMatching,
  defaultKeymap,
  drawSelection,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSelectionMatches,
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
import { coverageGutter, setCoverage } from "./coverage.js";
import { look } from "./look.js";
import { rego } from "./rego.js";

const CHECK_AFTER_MS = 150; // of quiet; with the check itself an error shows within 300 ms
const NEW_RULE = "package clearance.workload\n\nimport rego.v1\n";

class PolicyEditor extends HTMLElement {
  connectedCallback() {
    this.form = this.closest("form");
    this.isReadOnly = this.hasAttribute("readonly");
    this.list = document.createElement("ul");
    this.querySelector(".policy-files").prepend(this.list);
    this.problems = this.querySelector(".policy-problems");
    this.files = [...this.querySelectorAll(".policy-file")].map((section) => this.adopt(section));
    this.label = new Compartment();
    this.found = [];
    this.mount();
    this.classList.add("is-live");
    this.querySelector("[data-add]")?.addEventListener("click", () => this.add());
    // Before htmx or the browser reads the fields.
    document.addEventListener("submit", () => this.flush(), true);
    document.addEventListener("click", (event) => this.follow(event));
    document.body.addEventListener("htmx:after:swap", (event) => this.answered(event));
    this.drawList();
    const wanted = this.files.findIndex((file) => file.path.value === decodeURIComponent(location.hash.slice(1)));
    this.open(Math.max(wanted, 0), { isQuiet: true });
    this.check();
  }

  /** One file of the form: its fields, its button in the list, its state in the editor. */
  adopt(section) {
    const path = section.querySelector("input[name=path]");
    const source = section.querySelector("textarea[name=source]");
    const file = { section, path, source, lines: null };
    section.hidden = true;
    path.addEventListener("input", () => this.renamed(file));
    section.querySelector("[data-remove]")?.addEventListener("click", () => this.remove(file));
    return file;
  }

  mount() {
    // In a shadow root the styles of CodeMirror are a constructed sheet, which needs no exception
    // from the content security policy.
    const host = this.querySelector(".policy-code");
    const root = host.attachShadow({ mode: "open" });
    this.view = new EditorView({ parent: root, root });
    host.hidden = false;
  }

  stateOf(file) {
    return EditorState.create({
      doc: file.source.value,
      extensions: [
        lineNumbers(),
        highlightActiveLineGutter(),
        history(),
        drawSelection(),
        highlightActiveLine(),
        bracketMatching(),
        highlightSelectionMatches(),
        search(),
        rego,
        indentUnit.of("\t"),
        EditorState.tabSize.of(4),
        EditorState.readOnly.of(this.isReadOnly),
        lintGutter(),
        coverageGutter,
        look,
        keymap.of([
          { key: "Ctrl-Enter", mac: "Cmd-Enter", run: () => this.press("evaluate") },
          { key: "F8", run: nextDiagnostic },
          ...searchKeymap,
          ...defaultKeymap,
          ...historyKeymap,
        ]),
        this.label.of(EditorView.contentAttributes.of(this.attributes_of(file))),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) this.changed(file);
        }),
      ],
    });
  }

  attributes_of(file) {
    return { "aria-label": `${file.path.value || "new file"}, Rego source`, tabindex: "0" };
  }

  open(index, { isQuiet = false } = {}) {
    const file = this.files[index];
    if (!file) return;
    if (this.current) this.current.state = this.view.state;
    this.current = file;
    file.state ??= this.stateOf(file);
    this.view.setState(file.state);
    for (const other of this.files) other.section.hidden = other !== file;
    this.drawList();
    this.drawProblems();
    this.mark(file);
    if (!isQuiet) this.view.focus();
  }

  changed(file) {
    file.isDirty = true;
    file.lines = null;
    this.soon();
  }

  renamed(file) {
    this.drawList();
    const effect = this.label.reconfigure(EditorView.contentAttributes.of(this.attributes_of(file)));
    this.view.dispatch({ effects: effect });
    this.soon();
  }

  /** The text areas are what the form sends. */
  flush() {
    for (const file of this.files) {
      if (!file.isDirty) continue;
      file.source.value = this.textOf(file);
      file.isDirty = false;
    }
  }

  textOf(file) {
    const state = file === this.current ? this.view.state : file.state;
    return state ? state.doc.toString() : file.source.value;
  }

  add() {
    const section = this.querySelector(".policy-file:last-of-type").cloneNode(true);
    section.id = "";
    const number = this.files.length;
    for (const name of ["path", "source"]) {
      const field = section.querySelector(`[name=${name}]`);
      const label = section.querySelector(`label[for="${field.id}"]`);
      field.id = `id-${name}-${number}`;
      label.htmlFor = field.id;
    }
    const file = this.adopt(section);
    file.path.value = this.freeName();
    file.path.readOnly = false;
    file.source.value = NEW_RULE;
    this.querySelector(".policy-sources").append(section);
    this.files.push(file);
    this.open(this.files.length - 1, { isQuiet: true });
    file.path.focus();
    file.path.select();
    this.soon();
  }

  freeName() {
    const taken = new Set(this.files.map((file) => file.path.value));
    for (let number = 1; ; number += 1) {
      const name = `rule${number}.rego`;
      if (!taken.has(name)) return name;
    }
  }

  remove(file) {
    if (this.files.length === 1) return;
    const index = this.files.indexOf(file);
    this.files.splice(index, 1);
    file.section.remove();
    this.current = null;
    this.open(Math.min(index, this.files.length - 1));
    this.soon();
  }

  press(action) {
    const button = this.form.querySelector(`button[name=do][value=${action}]`);
    if (!button || button.disabled) return true;
    this.form.requestSubmit(button);
    return true;
  }

  soon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.check(), CHECK_AFTER_MS);
  }

  async check() {
    if (!this.dataset.check) return;
    this.asking?.abort();
    this.asking = new AbortController();
    const files = this.files
      .filter((file) => file.path.value || this.textOf(file).trim())
      .map((file) => ({ path: file.path.value, source: this.textOf(file) }));
    try {
      const response = await fetch(this.dataset.check, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "X-CSRFToken": this.form.querySelector("[name=csrfmiddlewaretoken]").value,
        },
        body: JSON.stringify({ files }),
        signal: this.asking.signal,
      });
      const answer = await response.json();
      if (response.ok) this.judged(answer.diagnostics, answer.silent_points);
      else this.judged([{ path: "", line: 1, column: 1, text: answer.detail }], []);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.judged([{ path: "", line: 1, column: 1, text: "The server does not answer: not checked." }], []);
    }
  }

  judged(diagnostics, silent) {
    this.found = diagnostics;
    this.silent = silent;
    this.drawList();
    this.drawProblems();
    this.mark(this.current);
    this.dataset.checks = String(Number(this.dataset.checks ?? 0) + 1);
  }

  /** Underline what is wrong in the open file. */
  mark(file) {
    const { doc } = this.view.state;
    const own = this.found.filter((one) => one.path === file.path.value);
    const ranges = own.map((one) => {
      const line = doc.line(Math.min(Math.max(one.line, 1), doc.lines));
      const from = Math.min(line.from + Math.max(one.column - 1, 0), line.to);
      const word = /^\w+/.exec(doc.sliceString(from, line.to));
      const to = Math.min(from + (word ? word[0].length : 1), line.to);
      // At the end of a line there is nothing to underline: take its last character.
      const start = from === to ? Math.max(line.from, from - 1) : from;
      return { from: start, to, severity: "error", message: one.text };
    });
    this.view.dispatch(setDiagnostics(this.view.state, ranges));
    this.view.dispatch({ effects: setCoverage.of(file.lines) });
  }

  drawList() {
    this.list.replaceChildren(
      ...this.files.map((file, index) => {
        const button = document.createElement("button");
        button.type = "button";
        const count = this.found.filter((one) => one.path === file.path.value).length;
        button.textContent = file.path.value || "(no path)";
        button.title = file.path.value;
        if (file === this.current) button.setAttribute("aria-current", "true");
        if (count) {
          const mark = document.createElement("span");
          mark.className = "tone-danger";
          mark.textContent = `✕ ${count}`;
          mark.title = `${count} problems`;
          button.append(" ", mark);
        }
        button.addEventListener("click", () => this.open(index));
        const item = document.createElement("li");
        item.append(button);
        return item;
      }),
    );
  }

  drawProblems() {
    const lines = this.found.map((one) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `#${one.path}`;
      link.dataset.path = one.path;
      link.dataset.line = one.line;
      link.dataset.column = one.column;
      link.textContent = one.path ? `${one.path}:${one.line}:${one.column}` : "bundle";
      item.append(link, ` ${one.text}`);
      return item;
    });
    const head = document.createElement("p");
    if (this.found.length) {
      head.className = "tone-danger";
      head.textContent = `✕ ${this.found.length} problem${this.found.length === 1 ? "" : "s"}`;
    } else {
      head.className = "tone-good";
      head.textContent = "✓ It compiles.";
    }
    const parts = [head];
    if (lines.length) {
      const list = document.createElement("ul");
      list.append(...lines);
      parts.push(list);
    }
    if (this.silent?.length) {
      const warning = document.createElement("p");
      warning.className = "tone-warning";
      warning.textContent = `▲ No rule for ${this.silent.join(", ")}: enforced, it denies everything there.`;
      parts.push(warning);
    }
    this.problems.replaceChildren(...parts);
  }

  /** A link that names a file and a line opens it there. */
  follow(event) {
    const link = event.target.closest?.("a[data-path]");
    if (!link) return;
    const index = this.files.findIndex((file) => file.path.value === link.dataset.path);
    if (index < 0) return;
    event.preventDefault();
    this.open(index);
    const { doc } = this.view.state;
    const line = doc.line(Math.min(Math.max(Number(link.dataset.line), 1), doc.lines));
    const column = Math.max(Number(link.dataset.column ?? 1) - 1, 0);
    const anchor = Math.min(line.from + column, line.to);
    this.view.dispatch({
      selection: { anchor },
      effects: EditorView.scrollIntoView(anchor, { y: "center" }),
    });
    this.scrollIntoView({ block: "nearest" });
  }

  /** What the form asked for has come: show it, and mark what the tests reached. */
  answered(event) {
    if (event.target !== this.form) return;
    document.querySelector("#results").scrollIntoView({ block: "nearest" });
    this.showCoverage();
  }

  showCoverage() {
    const part = document.querySelector("#results [data-coverage]");
    const known = new Map();
    for (const file of part ? JSON.parse(part.dataset.coverage) : []) known.set(file.path, file);
    if (!part) return;
    for (const file of this.files) file.lines = known.get(file.path.value) ?? null;
    this.view.dispatch({ effects: setCoverage.of(this.current.lines) });
  }
}

customElements.define("policy-editor", PolicyEditor);
