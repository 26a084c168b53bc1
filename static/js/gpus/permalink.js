/* The address of the page on GPUs says what it shows: the live part knows the query it came from. */

document.addEventListener("htmx:after:swap", () => {
  const shown = document.querySelector("#live.gpus")?.getAttribute("hx-get");
  if (!shown || shown === location.pathname + location.search) return;
  history.replaceState(history.state, "", shown + location.hash);
});
