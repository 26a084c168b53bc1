/* The filter of a page's main table: the server's box where there is one, else over shown rows. */

import { parseFilter } from "./grammar.js";
import { step } from "./rows.js";

const SERVER_BOX = "main [data-filter-box], main form[role=search] input:not([type=hidden])";
const PARAMETER = "shown"; // in the permalink
const CLIENT_BOX = "shown-rows-filter";

let refresh = () => {};

/** Focus the filter of the page, making one where the server has none; false without a table. */
export function focusFilter() {
  const box = document.querySelector(SERVER_BOX) ?? clientBox();
  if (!box) return false;
  box.focus();
  box.select();
  return true;
}

/** Tables that always have a filter, and one that the permalink carries. */
export function watchRows() {
  document.addEventListener("htmx:after:swap", () => refresh());
  document.addEventListener("keydown", leaveBox);
  const isAsked = new URLSearchParams(location.search).has(PARAMETER);
  if (document.querySelector("main table[data-filter]") || isAsked) clientBox();
}

function leaveBox(event) {
  if (!event.target.matches?.(`${SERVER_BOX}, #${CLIENT_BOX}`)) return;
  if (event.key === "Escape" && !event.target.value) event.target.blur();
  else if (event.key === "Enter" && event.target.id === CLIENT_BOX) step(1);
}

function mainTable() {
  const tables = document.querySelectorAll("main table:not([role])");
  return document.querySelector("main table[data-filter]") ?? [...tables].find((one) => one.checkVisibility());
}

function clientBox() {
  const there = document.getElementById(CLIENT_BOX);
  if (there) return there;
  const table = mainTable();
  if (!table) return null;
  const bar = document.createElement("div");
  bar.className = "shown-filter";
  const box = document.createElement("input");
  box.id = CLIENT_BOX;
  box.type = "search";
  box.autocomplete = "off";
  box.placeholder = "Filter shown rows: regex, !inverse, -l key=value, -f fuzzy";
  box.value = new URLSearchParams(location.search).get(PARAMETER) ?? "";
  box.setAttribute("aria-label", "Filter the rows shown on this page");
  box.setAttribute("aria-describedby", `${CLIENT_BOX}-words`);
  const words = document.createElement("span");
  words.id = `${CLIENT_BOX}-words`;
  words.setAttribute("role", "status");
  words.className = "quiet";
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = "Show all rows";
  all.hidden = true;
  all.addEventListener("click", () => {
    box.value = "";
    box.dispatchEvent(new Event("input"));
    box.focus();
  });
  bar.append(box, words, all);
  // Beside the live part, not in it: a refresh must not take away what is being typed.
  (table.closest("[data-live]") ?? table).before(bar);
  refresh = () => apply(box, words, all);
  box.addEventListener("input", () => {
    refresh();
    remember(box.value.trim());
  });
  refresh();
  return box;
}

function apply(box, words, all) {
  const table = mainTable();
  if (!table) return say(words, "There is no table to filter.", false);
  const keys = headings(table);
  const { test, error, isEmpty } = parseFilter(box.value, keys);
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  let kept = 0;
  for (const row of rows) {
    const isKept = test(wordsOf(row, keys));
    if (row.hidden === isKept) row.hidden = !isKept;
    kept += isKept;
  }
  box.toggleAttribute("aria-invalid", false);
  if (error) box.setAttribute("aria-invalid", "true");
  const count = isEmpty ? `${rows.length} rows shown` : `${kept} of the ${rows.length} shown rows`;
  say(words, error || count, Boolean(error));
  all.hidden = isEmpty || kept > 0;
}

function say(words, text, isError) {
  words.classList.toggle("field-error", isError);
  if (words.textContent !== text) words.textContent = text;
}

function headings(table) {
  const cells = table.tHead?.rows[0]?.cells ?? [];
  return [...cells].map((cell) => text(cell).toLowerCase().replace(/\s+/g, "_") || "column");
}

function wordsOf(row, keys) {
  return Object.fromEntries([...row.cells].map((cell, index) => [keys[index] ?? `column_${index}`, text(cell)]));
}

/** What a cell says, without the shapes that only decorate it. */
function text(node) {
  let said = "";
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) said += child.data;
    else if (child.getAttribute?.("aria-hidden") !== "true") said += ` ${text(child)} `;
  }
  return said.replace(/\s+/g, " ").trim();
}

function remember(value) {
  const url = new URL(location.href);
  if (value) url.searchParams.set(PARAMETER, value);
  else url.searchParams.delete(PARAMETER);
  history.replaceState(history.state, "", url);
}
