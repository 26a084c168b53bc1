/* The one confirm. Without a script the form is sent at once, and the server refuses all the same. */

const confirmed = new WeakSet();

/** Ask; resolves to whether the person went on. `action` is what the button says. */
export function confirm({ title, detail = "", action = "Go on", isDanger = false }) {
  const dialog = document.getElementById("confirm");
  const yes = document.getElementById("confirm-yes");
  document.getElementById("confirm-title").textContent = title;
  const words = document.getElementById("confirm-detail");
  words.textContent = detail;
  words.hidden = !detail;
  yes.textContent = action;
  yes.classList.toggle("danger", isDanger);
  yes.classList.toggle("primary", !isDanger);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** A form or its button with data-confirm asks first. Before anybody else sees the submit. */
document.addEventListener(
  "submit",
  async (event) => {
    const { target: form, submitter } = event;
    const asks = submitter?.dataset.confirm !== undefined ? submitter : form;
    if (asks.dataset.confirm === undefined || confirmed.delete(form)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const isSure = await confirm({
      title: asks.dataset.confirm,
      detail: asks.dataset.confirmDetail,
      action: asks.dataset.confirmAction ?? submitter?.textContent.trim(),
      isDanger: Boolean(submitter?.classList.contains("danger")),
    });
    if (!isSure) return submitter?.focus();
    confirmed.add(form);
    form.requestSubmit(submitter);
  },
  { capture: true },
);
