/* Picking several requests of the inbox: the sum is shown, and the pick outlives a refresh. */

const picked = new Map(); // uid -> amounts by unit
const bar = document.getElementById("bulk");
const words = bar.querySelector(".bulk-sum");
const review = bar.querySelector("[type=submit]");
const all = bar.querySelector("[data-pick=all]");
const UNITS = ["gpu_ms", "tokens", "micro_usd"];

function boxes() {
  return [...document.querySelectorAll("#live .pick input")];
}

function amountsOf(box) {
  return Object.fromEntries(
    UNITS.map((unit) => [unit, Number(box.getAttribute(`data-${unit}`) ?? 0)]),
  );
}

function counted(value, places) {
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

/** As the server writes them. */
function amount(unit, value) {
  if (unit === "tokens") return `${counted(value, 0)} tokens`;
  if (unit === "micro_usd") return `${counted(value / 1e6, 2)} USD`;
  const seconds = value / 1000;
  if (seconds >= 3600) return `${counted(seconds / 3600, 2)} GPU-hours`;
  return seconds >= 120 ? `${counted(seconds / 60, 1)} GPU-minutes` : `${counted(seconds, 1)} GPU-seconds`;
}

function show() {
  const count = picked.size;
  const sums = UNITS.map((unit) => [unit, [...picked.values()].reduce((sum, one) => sum + one[unit], 0)]);
  const parts = sums.filter(([, value]) => value > 0).map(([unit, value]) => amount(unit, value));
  words.textContent = count
    ? [`${count} request${count === 1 ? "" : "s"}`, ...parts].join(", ")
    : "Select requests to answer several at once.";
  review.disabled = count === 0;
  review.textContent = count ? `Review ${count}` : "Review selected";
  bar.toggleAttribute("data-picked", count > 0);
  const here = boxes();
  bar.hidden = here.length === 0 && count === 0;
  all.hidden = here.length < 2;
  all.textContent = here.every((box) => box.checked) ? "Select none" : "Select page";
}

/** After a refresh: what is still there stays picked, what is gone is not. */
function restore() {
  const here = boxes();
  const uids = new Set(here.map((box) => box.value));
  for (const uid of picked.keys()) if (!uids.has(uid)) picked.delete(uid);
  for (const box of here) box.checked = picked.has(box.value);
  show();
}

function pick(box, isPicked) {
  box.checked = isPicked;
  if (isPicked) picked.set(box.value, amountsOf(box));
  else picked.delete(box.value);
}

document.addEventListener("change", (event) => {
  if (!event.target.matches?.(".pick input")) return;
  pick(event.target, event.target.checked);
  show();
});
all.addEventListener("click", () => {
  const here = boxes();
  const isPicked = !here.every((box) => box.checked);
  for (const box of here) pick(box, isPicked);
  show();
});
new MutationObserver(restore).observe(document.getElementById("main"), { childList: true });
document.body.addEventListener("htmx:after:swap", restore);
for (const box of boxes()) if (box.checked) pick(box, true);
show();
