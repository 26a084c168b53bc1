/* Flight strips: a Goal each, in the bay where it stands, with its fuel gauge. */

import { badge, duration, element, goalUrl, setText } from "./dom.js";
import { FOREIGN, STATES, STATE_SHAPES, STATE_TONES } from "./store.js";

const SHOWN = 40; // strips of one bay; the list of Goals has them all
const BAYS = {
  queued: ["Draft", "Planned", "AwaitingApproval"],
  running: ["Running"],
  paused: ["Paused"],
  landed: ["Satisfied"],
  diverted: ["Exhausted", "Failed", "Cancelled", "Denied"],
};
const PHASES = {
  Draft: ["idle", "○", "Draft"],
  Planned: ["idle", "◔", "Planned"],
  AwaitingApproval: ["warning", "◆", "Awaiting approval"],
  Running: ["active", "▶", "Running"],
  Paused: ["warning", "‖", "Paused"],
  Satisfied: ["good", "✓", "Satisfied"],
  Exhausted: ["danger", "⊘", "Exhausted"],
  Failed: ["danger", "✕", "Failed"],
  Cancelled: ["idle", "-", "Cancelled"],
  Denied: ["danger", "⊘", "Denied"],
};
const UNITS = { gpu_ms: "GPU time", tokens: "tokens", micro_usd: "money" };
const SOFT_SHARE = 80; // percent of a budget from which the throttle warns
const BAY_OF = new Map(Object.entries(BAYS).flatMap(([bay, phases]) => phases.map((phase) => [phase, bay])));

export class Strips {
  /** `host` holds a `[data-bay]` list for each bay, `[data-bay-count]` beside it. */
  constructor(host, store) {
    this.store = store;
    this.host = host;
    this.made = new Map(); // uid -> strip
    this.query = () => true;
  }

  update(now) {
    const bays = Object.fromEntries(Object.keys(BAYS).map((bay) => [bay, []]));
    for (const goal of this.store.goals) {
      const bay = goal && BAY_OF.get(goal.phase);
      if (bay && this.query(goal)) bays[bay].push(goal);
    }
    const counts = this.counts();
    const alive = new Set();
    for (const [bay, goals] of Object.entries(bays)) {
      goals.sort(byUrgency);
      const list = this.host.querySelector(`[data-bay="${bay}"]`);
      const strips = goals.slice(0, SHOWN).map((goal) => {
        alive.add(goal.uid);
        return this.strip(goal, counts.get(goal.number), now);
      });
      reorder(list, strips);
      setText(this.host.querySelector(`[data-bay-count="${bay}"]`), String(goals.length));
      const more = this.host.querySelector(`[data-bay-more="${bay}"]`);
      more.hidden = goals.length <= SHOWN;
      setText(more.querySelector("[data-more]"), String(goals.length - SHOWN));
      list.closest(".bay").hidden = goals.length === 0;
    }
    for (const uid of this.made.keys()) if (!alive.has(uid)) this.made.delete(uid);
    this.updateForeign();
  }

  /** Workloads that are not ours: their own bay, those that hold GPUs first. */
  updateForeign() {
    const bay = this.host.querySelector("[data-foreign]");
    const { store } = this;
    const found = [];
    for (let slot = 0; slot < store.top; slot += 1) {
      if (store.alive[slot] && store.kind[slot] === FOREIGN) found.push(slot);
    }
    bay.closest(".bay").hidden = found.length === 0;
    setText(this.host.querySelector("[data-foreign-count]"), String(found.length));
    if (!found.length) return bay.replaceChildren();
    found.sort((one, other) => store.gpus[other] - store.gpus[one] || byName(store, one, other));
    const runs = found.slice(0, SHOWN).map((slot) => store.run(slot));
    const shown = runs.map((run) => [run.uid, run.state, run.gpus].join()).join(";");
    if (shown === this.shownForeign) return; // the focus stays where it is
    this.shownForeign = shown;
    bay.replaceChildren(...runs.map(foreignStrip));
    const more = this.host.querySelector("[data-foreign-more]");
    more.hidden = found.length <= SHOWN;
    setText(more.querySelector("[data-more]"), String(found.length - SHOWN));
  }

  /** Agents of each Goal by state. */
  counts() {
    const { store } = this;
    const all = new Uint32Array(store.goals.length * STATES.length);
    for (let slot = 0; slot < store.top; slot += 1) {
      if (store.alive[slot] && store.goal[slot] < store.goals.length) all[store.goal[slot] * STATES.length + store.state[slot]] += 1;
    }
    return {
      get: (number) => {
        const some = all.subarray(number * STATES.length, (number + 1) * STATES.length);
        return some.some((count) => count > 0) ? some : null;
      },
    };
  }

  strip(goal, counts, now) {
    let strip = this.made.get(goal.uid);
    if (!strip) {
      strip = newStrip(goal);
      this.made.set(goal.uid, strip);
    }
    const [tone, shape, word] = PHASES[goal.phase];
    if (strip.dataset.phase !== goal.phase) {
      strip.dataset.phase = goal.phase;
      strip.querySelector(".strip-phase").replaceChildren(badge(tone, shape, word));
    }
    setText(strip.querySelector(".strip-agents"), agentsText(counts));
    setFuel(strip.querySelector(".fuel"), goal);
    setText(strip.querySelector(".strip-fuel"), fuelText(goal));
    setText(strip.querySelector(".strip-note"), noteText(goal, now));
    return strip;
  }
}

function byName(store, one, other) {
  return store.names[store.agent[one]] < store.names[store.agent[other]] ? -1 : 1;
}

function foreignStrip(run) {
  return element(
    "li",
    { class: "strip", "data-phase": "Foreign" },
    element(
      "div",
      { class: "strip-head" },
      element("span", {}, element("a", { class: "strip-name", href: `/catalogue/${run.uid}` }, run.agent), " ", element("span", { class: "quiet" }, run.namespace)),
      badge(STATE_TONES[run.state], STATE_SHAPES[run.state], STATES[run.state]),
    ),
    element("div", { class: "strip-line" }, element("span", {}, `${run.task}, not ours`), element("span", {}, run.gpus ? `${run.gpus} GPU${run.gpus === 1 ? "" : "s"}` : "no GPU")),
  );
}

function newStrip(goal) {
  return element(
    "li",
    { class: "strip" },
    element(
      "div",
      { class: "strip-head" },
      element("span", {}, element("a", { class: "strip-name", href: goalUrl(goal) }, goal.name), " ", element("span", { class: "quiet" }, goal.namespace)),
      element("span", { class: "strip-phase" }),
    ),
    element("span", { class: "fuel", role: "img" }, element("span", { class: "fuel-settled" }), element("span", { class: "fuel-reserved" })),
    element("div", { class: "strip-line" }, element("span", { class: "strip-fuel" }), element("span", { class: "strip-agents" })),
    element("div", { class: "strip-note" }),
  );
}

function agentsText(counts) {
  if (!counts) return "no agent on the map";
  return [1, 2, 0, 3, 4, 5, 6]
    .filter((state) => counts[state])
    .map((state) => `${STATE_SHAPES[state]} ${counts[state]}`)
    .join("  ");
}

export function setFuel(fuel, goal) {
  const settled = goal.settled ?? 0;
  const reserved = Math.min(goal.reserved ?? 0, 100 - settled);
  fuel.dataset.level = goal.settled === null ? "unknown" : levelOf(goal);
  fuel.children[0].style.inlineSize = `${settled}%`;
  fuel.children[1].style.inlineSize = `${reserved}%`;
  fuel.setAttribute("aria-label", `Fuel: ${fuelText(goal)}`);
}

export function fuelText(goal) {
  if (goal.settled === null) return "fuel unknown";
  const level = { danger: "⊘ limit reached, ", warning: "▲ ", good: "" }[levelOf(goal)];
  return `${level}${goal.settled.toFixed(goal.settled < 10 ? 1 : 0)} % of ${UNITS[goal.unit] ?? goal.unit} spent`;
}

/** A Goal that has landed burns nothing any more: nobody has to be warned. */
function levelOf(goal) {
  if (!["queued", "running", "paused"].includes(BAY_OF.get(goal.phase))) return "good";
  return goal.settled >= 100 ? "danger" : goal.settled >= SOFT_SHARE ? "warning" : "good";
}

function noteText(goal, now) {
  if (goal.waiting) return "◆ waits for a human";
  if (goal.phase === "Running" && goal.exhausts !== null && goal.exhausts > now) return `empty in ${duration(goal.exhausts - now)}`;
  return "";
}

function byUrgency(one, other) {
  if (one.waiting !== other.waiting) return other.waiting - one.waiting;
  if ((one.settled ?? -1) !== (other.settled ?? -1)) return (other.settled ?? -1) - (one.settled ?? -1);
  return one.name < other.name ? -1 : 1;
}

/** Put the strips in this order, moving no element that stands right: the focus stays where it is. */
function reorder(list, strips) {
  strips.forEach((strip, i) => {
    if (list.children[i] !== strip) list.insertBefore(strip, list.children[i] ?? null);
  });
  while (list.children.length > strips.length) list.lastElementChild.remove();
}

