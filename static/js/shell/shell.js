/* The frame's script: shortcuts, the palette, the filter of rows, the confirm. */

import "./confirm.js";
import { watchRows } from "./filter.js";
import { listen } from "./keys.js";
import { open } from "./dialogs.js";
import { watchFilterForms } from "./refilter.js";
import { watchRefusals } from "./refusals.js";

for (const opener of document.querySelectorAll("[data-opens]")) {
  opener.hidden = false;
  opener.addEventListener("click", () => open(opener.dataset.opens));
}
for (const here of document.querySelectorAll(".main-nav [aria-current], .tabs [aria-current]")) {
  const strip = here.parentElement; // scrolled by itself: the page stays where it is
  strip.scrollLeft += here.getBoundingClientRect().left - strip.getBoundingClientRect().left
    - (strip.clientWidth - here.offsetWidth) / 2;
}
for (const picked of document.querySelectorAll(".graph-scroll [aria-current]")) {
  const frame = picked.closest(".graph-scroll"); // a large drawing opens at what it is about
  const box = picked.getBoundingClientRect();
  const view = frame.getBoundingClientRect();
  frame.scrollLeft += box.left - view.left - (frame.clientWidth - box.width) / 2;
  frame.scrollTop += box.top - view.top - (frame.clientHeight - box.height) / 2;
}
// A form that was refused: what is to be corrected first has the focus.
if (document.activeElement === document.body) document.querySelector("main [aria-invalid=true]")?.focus();
watchRows();
watchFilterForms();
watchRefusals();
listen();
