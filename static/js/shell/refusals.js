/* What an asked-for part was refused with stands above the page, which stays as it is. */

const place = () => document.getElementById("refusal");

/** Parts that read themselves again say by the badge that they could not. */
function isAsked(context) {
  return context?.sourceElement?.matches?.("form, button") ?? false;
}

export function watchRefusals() {
  document.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
    if (isAsked(ctx) && ctx.response.status < 400) place()?.replaceChildren();
  });
  document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
    if (!isAsked(ctx) || ctx.response) return;
    const line = document.createElement("p");
    line.className = "notice tone-danger";
    line.textContent = "✕ The server did not answer. See whether it was done before you try again.";
    place()?.replaceChildren(line);
  });
}
