/* The Tower page: one feed, one store, and the map, the table and the strips in step with it. */

import { badge, duration, element, goalUrl, gpuTime, setText } from "./dom.js";
import { FleetFeed } from "./feed.js";
import { parseFilter } from "../shell/grammar.js";
import { KEYS, wordsOf } from "./filter.js";
import { KillDialog } from "./kill.js";
import { GROUPS } from "./layout.js";
import { FleetMap } from "./map.js";
import { clock, Past } from "./past.js";
import { MAX_LINKED, Selection } from "./selection.js";
import { Steering } from "./steer.js";
import { bind } from "../shell/keys.js";
import { FleetStore, STATES, STATE_SHAPES, STATE_TONES } from "./store.js";
import { fuelText, setFuel, Strips } from "./strips.js";
import { doing, FleetTable } from "./table.js";

const STRIPS_MS = 500; // strips move no faster: words that change four times a second cannot be read
const FILTER_MS = 120;
const SHAPES = { connecting: "◌", live: "●", stale: "○", past: "◷" };
const COMMANDS = { p: "pause", r: "resume", x: "cancel" };

class FleetTower extends HTMLElement {
  connectedCallback() {
    this.store = new FleetStore();
    this.isNarrowed = false;
    this.selection = new Selection(this.store);
    const handlers = {
      picked: (slot, how) => this.pick(slot, how),
      opened: (slot) => this.openRun(slot),
      chosen: (slots) => this.choose(() => this.selection.set(slots)),
      lassoed: (slots, isMore) => this.choose(() => (isMore ? this.selection.add(slots) : this.selection.set(slots))),
      commanded: (key) => this.command(key),
    };
    this.map = new FleetMap(this.querySelector(".map"), this.store, handlers);
    this.table = new FleetTable(this.querySelector(".twin-grid"), this.store, this.selection, handlers);
    this.strips = new Strips(this.querySelector(".strips"), this.store);
    this.steering = new Steering(this.querySelector(".steer-bar"), document.getElementById("steer-dialog"), this.selection);
    this.killing = new KillDialog(document.getElementById("kill-dialog"));
    this.past = new Past(this.querySelector(".past"), {
      shown: (frame) => this.showPast(frame),
      left: () => this.leavePast(),
      failed: (words) => this.failPast(words),
    });
    this.state = "connecting";
    this.readAddress();
    this.listen();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.feed = new FleetFeed(`${scheme}//${location.host}${this.dataset.socket}`, this.store, {
      changed: (result) => this.changed(result),
      judged: (state, words) => this.judged(state, words),
    });
    if (this.wantedAt) this.past.open(this.wantedAt);
  }

  listen() {
    this.group = this.querySelector("[name=group]");
    this.filter = this.querySelector("[name=q]");
    this.group.value = this.by;
    this.filter.value = this.text;
    this.group.addEventListener("change", () => {
      this.by = this.group.value;
      this.relayout(true);
      this.writeAddress();
    });
    this.filter.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.refilter(), FILTER_MS);
    });
    this.querySelector(".tower-tools").addEventListener("submit", (event) => event.preventDefault());
    this.querySelector("[data-clear-filter]").addEventListener("click", () => {
      this.filter.value = "";
      this.refilter();
      this.filter.focus();
    });
    for (const button of this.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => {
        if (button.dataset.zoom === "fit") this.map.fit();
        else this.map.zoom(Number(button.dataset.zoom));
      });
    }
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && event.target === this.filter) this.map.host.focus();
      else if (event.key === "Escape" && this.past.at !== null && !document.querySelector("dialog[open]")) this.past.live();
    });
    for (const button of this.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.useTool(button.dataset.tool));
    }
    this.querySelector("[data-choose-none]").addEventListener("click", () => this.choose(() => this.selection.set([])));
    this.querySelector("[data-kill]").addEventListener("click", (event) => {
      event.preventDefault();
      this.openKill();
    });
    this.bindKeys();
  }

  bindKeys() {
    const rows = [
      ["K", "Kill switch; then a: agent, g: Goal, n: namespace, e: everything"],
      ["p", "Pause the Goals of the chosen agents"],
      ["r", "Resume them"],
      ["x", "Cancel them"],
      ["v", "On the map a drag chooses, or moves"],
      ["l", "From the past back to live"],
    ];
    bind(
      ...rows.map(([key, says]) => ({ group: "Tower", keys: [key], says, run: () => this.command(key) })),
      { group: "Tower", keys: ["Space"], says: "Map and table: choose the agent in focus, or not" },
      { group: "Tower", keys: ["Shift+Arrow"], says: "Map and table: go on and choose" },
      { group: "Tower", keys: ["Control+a"], says: "Table: choose all that are shown" },
    );
  }

  /** A letter that means the same on the map, in the table and elsewhere; false when it means nothing. */
  command(key) {
    if (document.body.dataset.keys === "off") return false;
    if (key in COMMANDS && this.selection.size > 0 && this.past.at === null) this.steering.preview(COMMANDS[key]);
    else if (key === "K") this.openKill();
    else if (key === "v") this.useTool(this.map.tool === "move" ? "select" : "move");
    else if (key === "l" && this.past.at !== null) this.past.live();
    else return false;
    return true;
  }

  useTool(tool) {
    this.map.tool = tool;
    this.map.host.dataset.tool = tool;
    for (const button of this.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }

  openKill() {
    const slot = this.map.selected >= 0 ? this.map.selected : this.store.marked.indexOf(1);
    this.killing.open(slot >= 0 && this.store.alive[slot] ? this.store.run(slot) : null);
  }

  /** Change what is chosen, and say so everywhere. */
  choose(change) {
    change();
    this.map.changed();
    this.table.draw();
    this.showChosen();
    this.writeAddress();
  }

  showChosen() {
    const count = this.selection.size;
    setText(this.querySelector("[data-chosen]"), count === 1 ? "1 agent chosen" : `${count.toLocaleString("en")} agents chosen`);
    setText(this.querySelector("[data-chosen-note]"), count > MAX_LINKED ? "too many for the link of this page" : "");
    this.querySelector(".steer-bar").hidden = count === 0 || this.past.at !== null;
    this.steering.judge();
  }

  showPast(frame) {
    this.feed.hold(true);
    const result = this.store.apply(frame, 0);
    this.judged("past", `as of ${clock(frame.at)}, not live`);
    this.querySelector(".past-notice").hidden = false;
    setText(this.querySelector("[data-past]"), clock(frame.at));
    this.querySelector(".truncated-notice").hidden = !frame.isTruncated;
    setText(this.querySelector("[data-past-problem]"), "");
    this.changed(result);
    this.showChosen();
    this.writeAddress();
  }

  leavePast() {
    this.querySelector(".past-notice").hidden = true;
    setText(this.querySelector("[data-past-problem]"), "");
    this.feed.hold(false);
    this.showChosen();
    this.writeAddress();
  }

  failPast(words) {
    this.past.live();
    setText(this.querySelector("[data-past-problem]"), `That minute cannot be shown: ${words}`);
  }

  readAddress() {
    const asked = new URLSearchParams(location.search);
    this.by = GROUPS.includes(asked.get("group")) ? asked.get("group") : "goal";
    this.text = asked.get("q") ?? "";
    this.wantedRun = asked.get("run") ?? "";
    this.wantedAt = asked.get("at") ?? "";
    this.keepsChosen = asked.has("chosen");
    this.selection.kept = new Set((asked.get("chosen") ?? "").split(",").filter(Boolean).slice(0, MAX_LINKED));
    this.matcher = parseFilter(this.text, KEYS);
  }

  writeAddress() {
    const kept = new URLSearchParams();
    if (this.by !== "goal") kept.set("group", this.by);
    if (this.text) kept.set("q", this.text);
    if (this.selectedUid) kept.set("run", this.selectedUid);
    const chosen = this.selection.size <= MAX_LINKED ? this.selection.uids() : [];
    if (this.selectedUid ? chosen.join() !== this.selectedUid : chosen.length) kept.set("chosen", chosen.join());
    if (this.past.at !== null) kept.set("at", this.past.text);
    const query = kept.toString();
    history.replaceState(null, "", query ? `?${query}` : location.pathname);
  }

  refilter() {
    this.text = this.filter.value;
    this.matcher = parseFilter(this.text, KEYS);
    const problem = this.querySelector(".filter-problem");
    setText(problem, this.matcher.error);
    this.filter.setAttribute("aria-invalid", this.matcher.error ? "true" : "false");
    this.relayout(true);
    this.writeAddress();
  }

  shown() {
    const { store } = this;
    const slots = new Uint32Array(store.count);
    let count = 0;
    for (let slot = 0; slot < store.top; slot += 1) {
      if (!store.alive[slot]) continue;
      if (!this.matcher.isEmpty && !this.matcher.test(wordsOf(store, slot, STATES))) continue;
      slots[count] = slot;
      count += 1;
    }
    return slots.subarray(0, count);
  }

  relayout(isNow = false) {
    const make = () => {
      const slots = this.shown();
      setTimeout(() => {
        this.table.show(this.map.layout.order);
        this.count();
      });
      return slots;
    };
    if (isNow) this.map.show(make(), this.by);
    else this.map.showSoon(make);
    this.map.by = this.by;
  }

  changed(result) {
    this.map.spent = (this.map.spent ?? 0) + (result.ms ?? 0);
    // A hub that has just begun sends an empty snapshot, and all it knows after it.
    const isFirst = result.whole || this.state === "connecting";
    if (result.whole) {
      if (this.selectedUid) [this.wantedRun, this.keepsChosen] = [this.selectedUid, true]; // its slot may be another one now
      this.map.selected = -1;
      if (this.selection.restore()) this.showChosen();
      this.relayout(true);
    } else if (result.membership || (!this.matcher.isEmpty && result.slots.length)) this.relayout(isFirst);
    if (!result.whole && result.slots.length) this.map.changed(result.slots);
    if (this.wantedRun) this.findWanted();
    if (isFirst) {
      clearTimeout(this.stripsDue);
      this.showWords(); // at once: strips of another moment beside this map would be wrong
    } else if (!this.stripsDue) {
      this.stripsDue = setTimeout(() => this.showWords(), STRIPS_MS);
    }
  }

  showWords() {
    this.stripsDue = null;
    this.strips.update(Date.now());
    this.table.draw();
    this.count();
    this.showSelected();
    this.showChosen();
    setText(this.querySelector("[data-level]"), this.map.level);
  }

  findWanted() {
    const slot = this.store.slotOf(this.wantedRun);
    if (slot >= 0) {
      this.wantedRun = "";
      setTimeout(() => this.pick(slot, { isKept: this.keepsChosen }));
    }
  }

  count() {
    const counts = new Uint32Array(STATES.length);
    for (const slot of this.map.slots) counts[this.store.state[slot]] += 1;
    const isTold = this.past.at !== null || (this.feed?.age() ?? null) !== null; // unknown is not zero
    const words = (count) => (isTold ? count.toLocaleString("en") : "–");
    STATES.forEach((state, i) => setText(this.querySelector(`[data-count="${state}"]`), words(counts[i])));
    const [shown, all] = [this.map.slots.length, this.store.count];
    const foreign = this.store.foreign();
    const ours = all - foreign;
    const whole = `${ours.toLocaleString("en")} ${ours === 1 ? "agent" : "agents"}${foreign ? `, ${foreign.toLocaleString("en")} not ours` : ""}`;
    if (isTold) setText(this.querySelector("[data-total]"), this.matcher.isEmpty ? whole : `${shown.toLocaleString("en")} of ${all.toLocaleString("en")} agents`);
    this.showEmpty(shown, all);
  }

  /** Nothing on the map for one of four reasons, each with something to do about it. */
  showEmpty(shown, all) {
    let reason = "";
    if (this.state === "stale" && all === 0) reason = this.feed.ended === "no namespace that you may see" ? "no-right" : "down";
    else if (this.state === "connecting") reason = "connecting";
    else if (all === 0) reason = "none-yet";
    else if (shown === 0) reason = "filtered";
    for (const empty of this.querySelectorAll("[data-empty]")) empty.hidden = empty.dataset.empty !== reason;
    this.querySelector(".map-empty").hidden = !reason;
  }

  /** An agent comes into focus, and is chosen: alone, in addition, or with all in between. */
  pick(slot, { isMore = false, isRange = false, isToggle = false, isStep = false, isKept = false } = {}) {
    const { selection } = this;
    if (isKept) selection.anchor = slot; // only the focus moves
    else if (isRange && slot >= 0) selection.range(slot, this.map.layout.order);
    else if (isToggle || (isMore && !isStep)) selection.toggle(slot);
    else if (isMore) selection.add([slot]);
    else {
      selection.set([slot]);
      selection.anchor = slot;
    }
    this.map.select(slot);
    this.table.select(slot);
    this.selectedUid = slot >= 0 ? this.store.run(slot).uid : "";
    this.showSelected();
    this.showChosen();
    this.writeAddress();
  }

  openRun(slot) {
    location.assign(pageOf(this.store.run(slot)));
  }

  showSelected() {
    const panel = this.querySelector(".selected");
    const slot = this.map.selected;
    const isGone = slot < 0 || !this.store.alive[slot] || this.store.run(slot).uid !== this.selectedUid;
    if (isGone) {
      panel.hidden = true;
      return;
    }
    const run = this.store.run(slot);
    if (panel.dataset.run !== run.uid) {
      panel.dataset.run = run.uid;
      setText(panel.querySelector("[data-field=agent]"), run.agent);
      const link = panel.querySelector("[data-link=attempt]");
      link.href = pageOf(run);
      setText(link, run.isForeign ? "Open in the catalogue" : "Open attempt");
      panel.querySelector("[data-link=goal]").hidden = !run.goal;
      if (run.goal) {
        panel.querySelector("[data-link=goal]").href = goalUrl(run.goal);
        setText(panel.querySelector("[data-link=goal]"), `Goal ${run.goal.name}`);
      }
    }
    panel.querySelector("[data-field=state]").replaceChildren(badge(STATE_TONES[run.state], STATE_SHAPES[run.state], STATES[run.state]));
    const facts = {
      task: run.task,
      kind: `${run.role}, ${run.gpus ? "holds GPUs" : "no GPU"}`,
      node: run.node || (run.gpus ? "unknown" : "no GPU"),
      doing: doing(run),
      gpu: run.gpus ? `${run.isForeign ? "not metered" : gpuTime(run.gpuMs)} on ${run.gpus}` : "no GPU",
      changed: `${duration(Date.now() - run.changed)} ago`,
      namespace: run.namespace,
    };
    for (const [name, text] of Object.entries(facts)) setText(panel.querySelector(`[data-field=${name}]`), text);
    const trail = run.trail.map((state) => element("li", { class: `tone-${STATE_TONES[state]}` }, `${STATE_SHAPES[state]} ${STATES[state]}`));
    panel.querySelector("[data-field=trail]").replaceChildren(...trail);
    const fuel = panel.querySelector(".fuel");
    fuel.parentElement.hidden = !run.goal;
    if (run.goal) {
      setFuel(fuel, run.goal);
      setText(panel.querySelector("[data-field=fuel]"), fuelText(run.goal));
    }
    panel.hidden = false;
  }

  judged(state, words) {
    const label = this.querySelector(".tower-feed .feed-word");
    if (this.state !== state || this.dataset.state !== state) {
      this.state = this.dataset.state = state;
      this.querySelector(".tower-feed").dataset.state = state;
      setText(this.querySelector(".tower-feed .shape"), SHAPES[state]);
      this.count();
    }
    setText(label, state === "past" ? words : `map ${words}`);
    const isStale = state === "stale";
    const notice = this.querySelector(".stale-notice");
    notice.hidden = !isStale || this.store.count === 0;
    const frame = this.feed?.frame;
    this.querySelector(".truncated-notice").hidden = !frame?.isTruncated;
    const spans = frame?.busAge;
    setText(this.querySelector("[data-spans]"), spans === null || spans === undefined || spans > 10000 ? "what agents do is not heard" : "");
  }
}

/** Where one run has a page of its own. */
function pageOf(run) {
  return run.isForeign ? `/catalogue/${run.uid}` : `/attempts/${run.uid}`;
}

customElements.define("fleet-tower", FleetTower);
