/* Walking the rows of a page: j and k, Enter, Escape; the row one is at is in the permalink. */

const ROWS = "main table:not([role]) tbody tr, main .inbox > li";
const TARGETS = "th a[href], a[href], button:not(:disabled)";

let current = null;

export function rows() {
  return [...document.querySelectorAll(ROWS)].filter((row) => row.checkVisibility());
}

function at() {
  if (current && !current.isConnected) current = current.id ? document.getElementById(current.id) : null;
  return current ?? (location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null);
}

export function step(by) {
  const all = rows();
  if (!all.length) return false;
  const index = all.indexOf(at());
  const wanted = index < 0 ? (by > 0 ? 0 : all.length - 1) : index + by;
  go(all[Math.min(Math.max(wanted, 0), all.length - 1)]);
  return true;
}

function go(row) {
  mark(row);
  const target = row.querySelector(TARGETS) ?? row;
  if (target === row) row.tabIndex = -1;
  target.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
  if (row.id) replaceHash(`#${encodeURIComponent(row.id)}`);
}

function mark(row) {
  for (const other of document.querySelectorAll("[data-at]")) delete other.dataset.at;
  current = row;
  if (row) row.dataset.at = "";
}

function replaceHash(hash) {
  history.replaceState(history.state, "", location.pathname + location.search + hash);
}

/** Open what the row leads to; false when no row is picked. */
export function openRow() {
  const link = at()?.querySelector("th a[href], a[href]");
  if (!link) return false;
  link.click();
  return true;
}

/** Leave the rows; false when none was picked. */
export function leave() {
  const row = at();
  if (!row?.matches(ROWS)) return false;
  mark(null);
  if (row.contains(document.activeElement)) document.activeElement.blur();
  if (location.hash) replaceHash("");
  return true;
}

/** A part that was swapped forgets the mark. */
document.addEventListener("htmx:after:swap", () => {
  const row = at();
  if (row?.matches(ROWS)) mark(row);
});
