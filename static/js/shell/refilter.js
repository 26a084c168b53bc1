/* Filter forms ask the server once for each change, however many events tell of it. */

const FORMS = "form[hx-trigger=refilter]";
const WAIT_MS = 300; // after the last key
const AGAIN_MS = 1000; // a press sooner than this after an answer was asked for means that one

const asked = new Map(); // form: what it asked for last, and when
const waits = new Map();

export function watchFilterForms() {
  for (const form of document.querySelectorAll(FORMS)) asked.set(form, { query: query(form), at: 0 });
  document.addEventListener("htmx:after:swap", markRefused);
  document.addEventListener("input", (event) => withForm(event, (form) => soon(form)));
  document.addEventListener("change", (event) => withForm(event, (form) => ask(form)));
  document.addEventListener("submit", (event) =>
    withForm(event, (form) => {
      event.preventDefault();
      ask(form, true);
    }),
  );
}

function withForm(event, run) {
  const form = event.target.form ?? event.target;
  if (asked.has(form)) run(form);
}

/** The form stays while its list is swapped: its fields say themselves whether they were refused. */
function markRefused() {
  for (const form of asked.keys()) {
    for (const field of form.elements) {
      const reason = field.name && document.getElementById(`${field.name}-error`);
      if (!reason && !field.matches("[aria-invalid]")) continue;
      if (reason) {
        field.setAttribute("aria-invalid", "true");
        field.setAttribute("aria-describedby", reason.id);
      } else {
        field.removeAttribute("aria-invalid");
        field.removeAttribute("aria-describedby");
      }
    }
  }
}

function query(form) {
  return new URLSearchParams(new FormData(form)).toString();
}

function soon(form) {
  clearTimeout(waits.get(form));
  waits.set(form, setTimeout(() => ask(form), WAIT_MS));
}

/** Ask for what the form says now; what it has asked for already only when a person insists. */
function ask(form, isPressed = false) {
  clearTimeout(waits.get(form));
  const now = query(form);
  const before = asked.get(form);
  const isAgain = isPressed && Date.now() - before.at > AGAIN_MS;
  if (before.query === now && !isAgain) return;
  asked.set(form, { query: now, at: Date.now() });
  htmx.trigger(form, "refilter");
}
