/* Steering what is chosen: a preview from the server, the confirm, the result of each Goal. */

import { element, setText } from "./dom.js";

const LISTED = 60; // Goals in the dialog; the rest is counted
const STEPS = { pause: ["Pause", "Paused"], resume: ["Resume", "Resumed"], cancel: ["Cancel", "Cancelled"] };
const OUTCOMES = {
  done: ["✓", "asked"],
  unchanged: ["=", "was so already"],
  skipped: ["-", "skipped"],
  refused: ["✕", "refused"],
};

export class Steering {
  /** `selection.uids()` are steered; `bar` has the buttons, `dialog` shows what they would do. */
  constructor(bar, dialog, selection) {
    this.bar = bar;
    this.dialog = dialog;
    this.selection = selection;
    for (const button of bar.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => this.preview(button.dataset.step));
    }
    dialog.querySelector("[data-go]").addEventListener("click", () => this.go());
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
  }

  get mayNot() {
    return this.bar.querySelector("[data-step]").disabled;
  }

  /** What is not ours is not steered from here: say so, and take the buttons away while nothing else is chosen. */
  judge() {
    const [all, ours] = [this.selection.size, this.selection.steerable().length];
    const none = all > 0 && ours === 0;
    for (const button of this.bar.querySelectorAll("[data-step]")) {
      button.dataset.why ??= button.getAttribute("aria-describedby") ?? ""; // as the server drew it
      const why = none ? "no-foreign" : button.dataset.why;
      button.disabled = why !== "";
      if (why) button.setAttribute("aria-describedby", why);
      else button.removeAttribute("aria-describedby");
    }
    const words = none ? "Not ours: no Goal answers for it, so nothing here pauses or ends it. Its page in the catalogue proposes a registration." : `${all - ours} of them are not ours and are left out.`;
    const note = this.bar.querySelector("#no-foreign");
    note.hidden = all === ours;
    setText(note, words);
  }

  async preview(step) {
    const uids = this.selection.steerable();
    if (!uids.length || this.mayNot || document.querySelector("dialog[open]")) return;
    this.order = { step, attempts: uids };
    this.show(`${STEPS[step][0]} what is chosen?`, "Asking what that hits …", []);
    this.dialog.dataset.phase = "asking";
    this.dialog.showModal();
    const answer = await this.ask({ ...this.order, dry_run: true });
    if (!answer || !this.dialog.open) return;
    const hit = answer.goals.filter((goal) => !goal.skipped);
    this.order = { step, goals: hit.map((goal) => goal.uid) };
    const words = hit.length ? `${answer.words}. The whole Goal is asked, with agents that are not chosen.` : "Nothing of it can be steered so.";
    this.show(`${STEPS[step][0]} ${hit.length === 1 ? hit[0].goal : `${hit.length} Goals`}?`, words, [
      ...hit.map((goal) => line("▶", goal.goal, `${goal.agents} at work, ${goal.phase}`)),
      ...answer.goals.filter((goal) => goal.skipped).map((goal) => line("-", goal.goal, `skipped: ${goal.skipped}`)),
      ...(answer.left_out ? [line("?", `${answer.left_out} more`, "not yours to see, or gone meanwhile")] : []),
    ]);
    const go = this.dialog.querySelector("[data-go]");
    setText(go, `${STEPS[step][0]} ${hit.length === 1 ? "1 Goal" : `${hit.length} Goals`}`);
    go.classList.toggle("danger", step === "cancel");
    go.classList.toggle("primary", step !== "cancel");
    this.dialog.dataset.phase = hit.length ? "preview" : "nothing";
    (hit.length ? go : this.dialog.querySelector("[data-close]")).focus();
  }

  async go() {
    if (this.dialog.dataset.phase !== "preview") return;
    this.dialog.dataset.phase = "asking";
    const answer = await this.ask(this.order);
    if (!answer) return;
    const done = answer.results.filter((one) => one.outcome === "done").length;
    this.show(
      `${done} of ${answer.results.length} Goals asked to ${this.order.step}`,
      "",
      answer.results.map((one) => line(OUTCOMES[one.outcome][0], one.goal, [OUTCOMES[one.outcome][1], one.message].filter(Boolean).join(": "))),
    );
    this.dialog.dataset.phase = "done";
    this.dialog.querySelector("[data-close]").focus();
  }

  async ask(order) {
    try {
      const response = await fetch("/api/v1/steer", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRFToken": this.bar.querySelector("[name=csrfmiddlewaretoken]").value },
        body: JSON.stringify(order),
      });
      const answer = await response.json();
      if (response.ok) return answer;
      this.fail(answer.detail ?? "The server refused it.");
    } catch {
      this.fail("The server did not answer; nothing is known to have changed. Try again.");
    }
    return null;
  }

  fail(words) {
    this.show("That did not work", words, []);
    this.dialog.dataset.phase = "failed";
    this.dialog.querySelector("[data-close]").focus();
  }

  show(title, words, lines) {
    setText(this.dialog.querySelector("h2"), title);
    setText(this.dialog.querySelector("[data-words]"), words);
    const left = lines.length - LISTED;
    const shown = lines.slice(0, LISTED);
    if (left > 0) shown.push(line("…", `${left} more`, ""));
    this.dialog.querySelector("ul").replaceChildren(...shown);
  }
}

function line(shape, name, words) {
  return element(
    "li",
    {},
    element("span", { class: "shape", "aria-hidden": "true" }, shape),
    element("strong", {}, name),
    element("span", { class: "quiet" }, words),
  );
}
