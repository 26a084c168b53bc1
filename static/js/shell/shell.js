/* The frame's script: shortcuts, the palette, the filter of rows, the confirm. */

import "./confirm.js";
import { watchRows } from "./filter.js";
import { listen } from "./keys.js";
import { open } from "./dialogs.js";
import { watchFilterForms } from "./refilter.js";

for (const opener of document.querySelectorAll("[data-opens]")) {
  opener.hidden = false;
  opener.addEventListener("click", () => open(opener.dataset.opens));
}
document.querySelector(".main-nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
// A form that was refused: what is to be corrected first has the focus.
if (document.activeElement === document.body) document.querySelector("main [aria-invalid=true]")?.focus();
watchRows();
watchFilterForms();
listen();
