/* The map's twin for eyes and ears that want words: a table that draws only the rows in view. */

import { element, gpuTime, setText } from "./dom.js";
import { STATES, STATE_SHAPES, STATE_TONES } from "./store.js";

const ROW_PIXELS = 32; // as in tower.css
const SPARE = 6; // rows drawn above and below the view
const COLUMNS = ["pick", "state", "agent", "task", "goal", "namespace", "role", "node", "doing", "gpu"];

export class FleetTable {
  /** `host` scrolls; it is the table, its `.twin-rows` the body. */
  constructor(host, store, selection, { picked, opened, chosen, commanded }) {
    this.host = host;
    this.store = store;
    this.picked = picked;
    this.opened = opened;
    this.chosen = chosen;
    this.commanded = commanded;
    this.selection = selection;
    this.body = host.querySelector(".twin-rows");
    this.order = new Uint32Array(0);
    this.selected = -1;
    this.drawn = [];
    host.addEventListener("scroll", () => this.soon(), { passive: true });
    host.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[data-row]");
      if (!row) return;
      const slot = this.order[Number(row.dataset.row)];
      if (event.target.closest("[type=checkbox], .twin-pick")) this.picked(slot, event.shiftKey ? { isRange: true } : { isToggle: true });
      else this.picked(slot, { isMore: event.ctrlKey || event.metaKey, isRange: event.shiftKey });
    });
    this.all = host.querySelector("[data-pick-all]");
    this.all.addEventListener("change", () => this.chosen(this.all.checked ? this.order : []));
    new ResizeObserver(() => this.soon()).observe(host);
  }

  show(order) {
    this.order = order;
    this.body.style.blockSize = `${order.length * ROW_PIXELS}px`;
    this.host.setAttribute("aria-rowcount", String(order.length + 1));
    this.draw();
  }

  select(slot) {
    this.selected = slot;
    const row = this.order.indexOf(slot);
    if (row >= 0) this.reveal(row);
    this.draw();
  }

  reveal(row) {
    const head = ROW_PIXELS;
    const top = row * ROW_PIXELS;
    const room = this.host.clientHeight - head;
    if (top < this.host.scrollTop) this.host.scrollTop = top;
    else if (top + ROW_PIXELS > this.host.scrollTop + room) this.host.scrollTop = top + ROW_PIXELS - room;
  }

  key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "a") {
      event.preventDefault();
      return this.chosen(this.order);
    }
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(Math.floor(this.host.clientHeight / ROW_PIXELS) - 2, 1);
    const at = this.order.indexOf(this.selected);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, j: at + 1, k: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.order.length - 1 };
    if (event.key in steps && this.order.length) {
      const row = Math.min(Math.max(steps[event.key], 0), this.order.length - 1);
      this.picked(this.order[row], { isMore: event.shiftKey, isStep: true });
    } else if (event.key === " ") {
      this.picked(this.selected, { isToggle: true });
    } else if (event.key === "Enter" && this.selected >= 0) this.opened(this.selected);
    else if (event.key === "Escape") this.picked(-1);
    else if (!this.commanded(event.key)) return;
    event.preventDefault();
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    if (!this.host.clientHeight) return;
    const first = Math.max(Math.floor(this.host.scrollTop / ROW_PIXELS) - SPARE, 0);
    const last = Math.min(first + Math.ceil(this.host.clientHeight / ROW_PIXELS) + 2 * SPARE, this.order.length);
    while (this.drawn.length < last - first) this.drawn.push(this.newRow());
    while (this.drawn.length > last - first) this.drawn.pop().remove();
    this.drawn.forEach((row, i) => this.fill(row, first + i));
    const active = this.drawn.find((row) => row.dataset.focus === "true");
    const count = this.selection.size;
    this.all.checked = count > 0 && count >= this.order.length;
    this.all.indeterminate = count > 0 && count < this.order.length;
    if (active) this.host.setAttribute("aria-activedescendant", active.id);
    else this.host.removeAttribute("aria-activedescendant");
  }

  newRow() {
    const row = element("div", { role: "row", class: "twin-row" });
    for (const column of COLUMNS) row.append(element("span", { role: "gridcell", class: `twin-${column}` }));
    row.children[0].append(element("input", { type: "checkbox", tabindex: "-1" }));
    row.children[1].append(element("span", { class: "shape", "aria-hidden": "true" }), element("span"));
    this.body.append(row);
    return row;
  }

  fill(row, at) {
    const slot = this.order[at];
    const run = this.store.run(slot);
    row.dataset.row = String(at);
    row.id = `agent-row-${at}`;
    row.setAttribute("aria-rowindex", String(at + 2));
    const isChosen = this.selection.has(slot);
    row.setAttribute("aria-selected", String(isChosen));
    row.dataset.focus = String(slot === this.selected);
    row.style.transform = `translateY(${at * ROW_PIXELS}px)`;
    const [pick, state, ...cells] = row.children;
    pick.firstChild.checked = isChosen;
    pick.firstChild.setAttribute("aria-label", `Choose ${run.agent}, ${run.task}`);
    state.className = `twin-state tone-${STATE_TONES[run.state]}`;
    setText(state.children[0], STATE_SHAPES[run.state]);
    setText(state.children[1], STATES[run.state]);
    const texts = [
      run.agent, run.task, run.goal?.name ?? (run.isForeign ? "none" : "unknown"), run.namespace, run.role, run.node || (run.gpus ? "unknown" : "no GPU"),
      doing(run), run.gpus ? (run.isForeign ? `${run.gpus} held` : gpuTime(run.gpuMs)) : "no GPU",
    ];
    cells.forEach((cell, i) => setText(cell, texts[i]));
  }
}

/** The last span, and how sure the agent was. */
export function doing(run) {
  if (!run.span) return "unknown";
  return run.confidence === null ? run.span : `${run.span} (${Math.round(run.confidence * 100)} % sure)`;
}
