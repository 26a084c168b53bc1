/* The kill switch: two key presses choose the scope; the next page says what it hits and confirms. */

import { open } from "../shell/dialogs.js";
import { setText } from "./dom.js";

export class KillDialog {
  constructor(dialog) {
    this.dialog = dialog;
    dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      dialog.querySelector(`[data-letter="${CSS.escape(event.key.toLowerCase())}"]`)?.click();
    });
  }

  /** The four scopes, each with what it would mean for the agent in focus (null: for none). */
  open(run) {
    const targets = {
      agent: run && { namespace: run.namespace, name: run.agent },
      goal: run?.goal && { namespace: run.goal.namespace, name: run.goal.name },
      namespace: run && { namespace: run.namespace },
      everything: {},
    };
    for (const [scope, target] of Object.entries(targets)) {
      const link = this.dialog.querySelector(`[data-scope="${scope}"]`);
      link.href = `${this.dialog.dataset.url}?${new URLSearchParams({ scope, ...target })}`;
      setText(link.querySelector("[data-target]"), wordsOf(scope, target));
    }
    open(this.dialog.id);
  }
}

function wordsOf(scope, target) {
  if (scope === "everything") return "every namespace";
  return target ? [target.namespace, target.name].filter(Boolean).join("/") : "name it on the next page";
}
