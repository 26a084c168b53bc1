/* Which dialogs there are, and opening one: each fills itself when it is opened. */

const fillers = new Map();

/** `fill` runs each time before the dialog of that id is shown. */
export function whenOpened(id, fill) {
  fillers.set(id, fill);
}

export function open(id) {
  const dialog = document.getElementById(id);
  if (!dialog || document.querySelector("dialog[open]")) return;
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
  fillers.get(id)?.(dialog);
  dialog.showModal();
}

/** A press on the backdrop closes, as Escape does. */
document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLDialogElement && event.target.open) {
    const box = event.target.getBoundingClientRect();
    const isInside =
      event.clientX >= box.left && event.clientX <= box.right &&
      event.clientY >= box.top && event.clientY <= box.bottom;
    if (!isInside && event.detail) event.target.close("no");
  }
});
