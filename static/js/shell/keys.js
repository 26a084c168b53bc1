/* One table of shortcuts: the keys are bound from it, and the help is written from it. */

import { open, whenOpened } from "./dialogs.js";
import { focusFilter } from "./filter.js";
import "./palette.js";
import { leave, openRow, step } from "./rows.js";

const CAPS = { Control: "Ctrl", Escape: "Esc", ArrowLeft: "←", ArrowRight: "→" };
const SEQUENCE_MS = 1500; // how long "g" waits for the second key
// Keys of these belong to the widget they are pressed in.
const OWN_KEYS = "[role=grid], [role=application], [role=listbox], [role=tree], [role=treegrid], [role=slider]";

/**
 * `keys` are strokes ("Control+k", "?", "g t"); `run` returns false when there was nothing to do.
 * `within` limits one to what is pressed inside that selector, and the help to pages that have it.
 */
const BINDINGS = [
  { group: "Everywhere", keys: ["Control+k", "Meta+k"], says: "Go to or do anything by name", run: () => open("palette") },
  { group: "Everywhere", keys: ["?"], says: "This help", run: () => open("keys-help") },
  { group: "Everywhere", keys: ["/"], says: "Filter: regex, !inverse, -l key=value, -f fuzzy", run: focusFilter },
  { group: "Everywhere", keys: ["Escape"], says: "Leave the row, the filter, the dialog", run: leave },
  { group: "Rows", keys: ["j"], says: "Next row", run: () => step(1) },
  { group: "Rows", keys: ["k"], says: "Previous row", run: () => step(-1) },
  { group: "Rows", keys: ["Enter"], says: "Open the row", run: openRowUnlessFocused },
  ...[...document.querySelectorAll(".main-nav a[data-letter]")].map((link) => ({
    group: "Go to",
    keys: [`g ${link.dataset.letter}`],
    says: link.querySelector(".place").textContent,
    run: () => link.click(),
  })),
  // These are the widgets' own; they are named here so that the help is whole.
  { group: "Map", within: "fleet-tower", keys: ["ArrowLeft", "ArrowRight"], says: "Agent to agent, up and down too" },
  { group: "Map", within: "fleet-tower", keys: ["Enter"], says: "Open the agent's run" },
  { group: "Map", within: "fleet-tower", keys: ["+", "-", "0"], says: "Nearer, farther, all of it" },
  { group: "Editor", within: ".policy-code", keys: ["Control+Enter"], says: "Evaluate against the recorded input" },
];

/** Add a page's own shortcuts to the table. */
export function bind(...more) {
  BINDINGS.push(...more);
}

let begun = "";
let begunAt = 0;

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const stroke = strokeOf(event);
    if (!stroke) return;
    const isCharacter = !/^(Control|Meta|Alt)\+/.test(stroke) && event.key.length === 1;
    if (isCharacter && (document.body.dataset.keys === "off" || isTyping(event))) return;
    const isSecond = begun && Date.now() - begunAt < SEQUENCE_MS;
    const found =
      (isSecond && bound(`${begun} ${stroke}`, event)) || bound(stroke, event);
    begun = "";
    if (found) {
      if (found.run(event) !== false) event.preventDefault();
    } else if (isCharacter && BINDINGS.some((one) => one.keys.some((key) => key.startsWith(`${stroke} `)))) {
      begun = stroke;
      begunAt = Date.now();
    }
  });
}

function bound(stroke, event) {
  if (!/[+ ]/.test(stroke) && event.target.closest?.(OWN_KEYS) && stroke !== "?" && stroke !== "/") return null;
  return BINDINGS.find(
    (one) => one.run && one.keys.includes(stroke) && (!one.within || event.target.closest?.(one.within)),
  );
}

function strokeOf(event) {
  if (["Control", "Meta", "Alt", "Shift"].includes(event.key)) return "";
  const held = [event.ctrlKey && "Control", event.metaKey && "Meta", event.altKey && "Alt"].filter(Boolean);
  const key = held.length && event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return [...held, key].join("+");
}

/** The element that really has the focus, also inside a shadow tree. */
function isTyping(event) {
  const target = event.composedPath()[0];
  if (!(target instanceof Element)) return false;
  if (target.matches("textarea, select, [contenteditable]:not([contenteditable=false]), [role=textbox], [role=combobox]")) return true;
  return target.matches("input:not([type=checkbox], [type=radio], [type=button], [type=submit], [type=range])");
}

/** A focused link or button opens by itself. */
function openRowUnlessFocused(event) {
  return event.target === document.body ? openRow() : false;
}

whenOpened("keys-help", (dialog) => {
  dialog.querySelector("[data-keys-off]").hidden = document.body.dataset.keys !== "off";
  const groups = grouped(BINDINGS.filter((one) => !one.within || document.querySelector(one.within)));
  dialog.querySelector(".keys-groups").replaceChildren(...[...groups].map(([name, some]) => section(name, some)));
});

function grouped(bindings) {
  const groups = new Map();
  for (const one of bindings) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  return groups;
}

function partsOf(key) {
  if (key.length === 1) return [key];
  return key.replace(/\+(.)$/, (_, last) => `+${last.toUpperCase()}`).split(/[ +]/);
}

function section(name, some) {
  const box = document.createElement("section");
  const title = document.createElement("h3");
  title.textContent = name;
  const list = document.createElement("dl");
  list.className = "keys-list";
  for (const { keys, says } of some) {
    const row = document.createElement("div");
    const term = document.createElement("dt");
    for (const key of keys.filter((one) => !one.startsWith("Meta+"))) {
      for (const part of partsOf(key)) {
        const cap = document.createElement("kbd");
        cap.textContent = CAPS[part] ?? part;
        term.append(cap, " ");
      }
    }
    const what = document.createElement("dd");
    what.textContent = says;
    row.append(term, what);
    list.append(row);
  }
  box.append(title, list);
  return box;
}
