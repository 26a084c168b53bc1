/* The form of a Goal and its YAML: one document in two views, checked by the server as one types. */
const CHECK_AFTER_MS = 120; // of quiet; with the check itself a problem shows within 300 ms

class GoalEditor extends HTMLElement {
  connectedCallback() {
    this.form = this.closest("form");
    this.mode = this.form.elements.mode;
    this.area = this.querySelector("textarea[name=manifest]");
    this.fields = new Map();
    for (const box of this.querySelectorAll("[data-field]")) {
      const control = box.querySelector("input, textarea, select");
      this.fields.set(box.dataset.field, { box, control });
      control.addEventListener("input", () => this.soon());
    }
    this.base = this.area.value; // what the fields are written into
    this.area.addEventListener("input", () => this.soon());
    this.problems = document.querySelector(".gf-problems");
    this.offerAgents();
    this.classList.add("is-live");
    for (const button of this.querySelectorAll(".gf-modes button")) {
      button.type = "button";
      button.addEventListener("click", () => this.turn(button.value === "to_yaml" ? "yaml" : "form"));
    }
    document.addEventListener("click", (event) => this.follow(event));
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.submit();
    });
    addEventListener("beforeunload", (event) => {
      if (this.isDirty && !this.isSent) event.preventDefault();
    });
    this.form.addEventListener("submit", (event) => {
      this.isSent = event.submitter?.value === "apply";
    });
    document.body.addEventListener("htmx:after:request", () => {
      if (document.querySelector("#answer .notice")) this.isSent = false;
    });
    if (this.mode.value === "yaml") this.openCode();
    this.check();
  }

  submit() {
    this.form.requestSubmit(this.form.querySelector("button[value=check]"));
    return true;
  }

  values() {
    const values = {};
    for (const [name, { control }] of this.fields) {
      if (!control.disabled) values[name] = control.value;
    }
    return values;
  }

  soon() {
    this.isDirty = true;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.check(), CHECK_AFTER_MS);
  }

  /** Ask the server what the document says now; null when it does not answer. */
  async ask(body) {
    this.asking?.abort();
    this.asking = new AbortController();
    const response = await fetch(this.dataset.draft, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "X-CSRFToken": this.form.elements.csrfmiddlewaretoken.value,
      },
      body: JSON.stringify(body),
      signal: this.asking.signal,
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail ?? "The server refused to check it.");
    return answer;
  }

  async check() {
    const isForm = this.mode.value === "form";
    const body = isForm ? { text: this.base, fields: this.values() } : { text: this.area.value };
    try {
      const answer = await this.ask(body);
      this.latest = answer;
      this.showProblems(answer.problems);
      if (!isForm) this.sayFormError(answer.form_error);
    } catch (error) {
      if (error.name === "AbortError") return false;
      this.latest = null;
      this.showProblems([{ message: `${error.message} Not checked.`, line: 0, field: "", path: "" }]);
      return false;
    } finally {
      this.dataset.checks = String(Number(this.dataset.checks ?? 0) + 1);
    }
    return true;
  }

  /** The other view of the same text. The form opens only on a text that it can show. */
  async turn(mode) {
    if (mode === this.mode.value) return;
    clearTimeout(this.waiting);
    if (!(await this.check()) || !this.latest) return;
    if (mode === "yaml") {
      this.area.value = this.latest.text;
      this.setMode("yaml");
      await this.openCode();
      this.code?.show(this.latest.text);
      this.code?.mark(this.latest.problems);
      this.code?.focus();
      return;
    }
    if (!this.latest.fields) {
      this.sayFormError(this.latest.form_error);
      return;
    }
    this.base = this.latest.text;
    for (const [name, { box, control }] of this.fields) {
      const reading = this.latest.fields[name];
      control.value = reading.value;
      control.disabled = Boolean(reading.why_not);
      box.dataset.whyNot = reading.why_not;
    }
    this.setMode("form");
    this.showProblems(this.latest.problems);
    this.offerAgents();
  }

  setMode(mode) {
    this.mode.value = mode;
    this.dataset.mode = mode;
    this.querySelector(".gf-form").hidden = mode !== "form";
    this.querySelector(".gf-yaml").hidden = mode !== "yaml";
    for (const button of this.querySelectorAll(".gf-modes button")) {
      button.setAttribute("aria-pressed", String(button.value === `to_${mode}`));
    }
    this.sayFormError("");
  }

  sayFormError(words) {
    const line = this.querySelector(".gf-form-error");
    line.hidden = !words;
    line.querySelector("span:last-child").textContent = words ? `No form of this: ${words}` : "";
  }

  /** CodeMirror comes when the YAML is first looked at: the form needs none of it. */
  async openCode() {
    if (this.code) return;
    const { CodeView } = await import("./code.js");
    this.code = new CodeView(this.querySelector(".gf-code"), {
      text: this.area.value,
      label: "Manifest, YAML or JSON",
      submit: () => this.submit(),
      changed: (text) => {
        this.area.value = text;
        this.soon();
      },
    });
    this.querySelector(".gf-yaml").classList.add("is-code");
    if (this.latest) this.code.mark(this.latest.problems);
  }

  showProblems(problems) {
    if (this.mode.value === "yaml") this.code?.mark(problems);
    else this.showAtFields(problems);
    const head = document.createElement("p");
    head.className = problems.length ? "tone-danger" : "tone-good";
    head.textContent = problems.length
      ? `✕ ${problems.length} problem${problems.length === 1 ? "" : "s"}`
      : "✓ Well formed, and every agent is registered.";
    const parts = [head];
    if (problems.length) {
      const list = document.createElement("ul");
      list.className = "problems";
      list.append(...problems.map((one) => this.line(one)));
      parts.push(list);
    }
    this.problems.replaceChildren(...parts);
  }

  line(problem) {
    const item = document.createElement("li");
    if (problem.line || problem.field) {
      const link = document.createElement("a");
      link.href = problem.field ? `#f-${problem.field}` : "#id_manifest";
      link.dataset.line = problem.line;
      link.dataset.column = problem.column;
      link.dataset.field = problem.field;
      link.textContent =
        this.mode.value === "yaml" && problem.line
          ? `${problem.line}:${problem.column}`
          : problem.path || `line ${problem.line}`;
      item.append(link, " ");
    }
    item.append(problem.message);
    return item;
  }

  showAtFields(problems) {
    for (const [name, { box, control }] of this.fields) {
      const own = problems.filter((one) => one.field === name);
      const place = box.querySelector(".field-error");
      const lines = own.map((one) => {
        const line = document.createElement("span");
        line.className = "gf-error";
        line.textContent = `✕ ${one.message}`;
        return line;
      });
      if (box.dataset.whyNot) {
        const line = document.createElement("span");
        line.className = "gf-why-not";
        line.textContent = box.dataset.whyNot;
        lines.push(line);
      }
      if (control.disabled && !lines.length) continue;
      place.replaceChildren(...lines);
      if (own.length) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
  }

  /** A link that names a place goes there in whichever view is open. */
  follow(event) {
    const link = event.target.closest?.("a[data-line]");
    if (!link) return;
    event.preventDefault();
    const field = link.hash.startsWith("#f-") ? this.fields.get(link.hash.slice(3)) : null;
    if (this.mode.value === "form" && field && !field.control.disabled) {
      field.control.focus();
      return;
    }
    const go = () => this.code?.go(Number(link.dataset.line), Number(link.dataset.column));
    if (this.mode.value === "yaml") go();
    else this.turn("yaml").then(go);
  }

  /** The registered agents of the namespace, a press away from the list. */
  offerAgents() {
    const { box, control } = this.fields.get("agents");
    const offer = box.querySelector(".gf-offer");
    const known = JSON.parse(document.getElementById("gf-agents").textContent);
    const draw = () => {
      const namespace = this.fields.get("namespace").control.value || "default";
      const listed = new Set(control.value.split("\n").map((line) => line.trim()));
      const free = known.filter((one) => one.namespace === namespace && !listed.has(one.name));
      offer.hidden = !free.length || control.disabled;
      offer.replaceChildren(
        ...free.slice(0, 24).map((one) => {
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = `+ ${one.name}`;
          button.addEventListener("click", () => {
            const text = control.value.trimEnd();
            control.value = text ? `${text}\n${one.name}` : one.name;
            control.dispatchEvent(new Event("input", { bubbles: true }));
            control.focus();
          });
          return button;
        }),
      );
    };
    if (!this.isOffering) {
      control.addEventListener("input", draw);
      this.fields.get("namespace").control.addEventListener("input", draw);
      this.isOffering = true;
    }
    draw();
  }
}

customElements.define("goal-editor", GoalEditor);
