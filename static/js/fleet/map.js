/* The map: camera, pointer and keys, names of groups and agents over the points. */

import { CanvasRenderer } from "./canvas.js";
import { layOut, tally } from "./layout.js";
import { duration } from "./dom.js";
import { readPalette } from "./palette.js";
import { within } from "./selection.js";
import { STATES, STATE_SHAPES, STATE_TONES } from "./store.js";
import { WebglRenderer } from "./webgl.js";

const MARGIN = 12; // pixels around the whole
const LEAST_SCALE = 0.5; // pixels a cell
const MOST_SCALE = 80;
const FIT_MOST = 34; // few agents are not blown up
const NAMES_FROM = 46; // pixels a cell from which agents have names and their last states
const BLOCKS_BELOW = 2.6; // below it a group is a block of its states
const RELAYOUT_MS = 500;
const LABELS_MS = 500; // counts in names move no faster than strips do
const FLASH_MS = 1600;
const WIDTHS_MOST = 8000; // measured texts that are remembered
const CLICK_PIXELS = 5;
const LASSO_STEP = 4; // pixels between two points of a lasso
const SOON_MS = 3_600_000; // a budget that ends within an hour is said beside the name
const NUMBERED = 8; // letters below which a cut name keeps one of its first
const NAME_PIXELS = 12; // least height of a group's name

export class FleetMap {
  /** `picked(slot, how)` when a person chose an agent, -1 for none; `opened(slot)` at Enter;
  `lassoed(slots, isMore)` when several were caught; `commanded(key)` for any other key. */
  constructor(host, store, { picked, opened, lassoed, commanded }) {
    this.host = host;
    this.store = store;
    this.picked = picked;
    this.opened = opened;
    this.lassoed = lassoed;
    this.commanded = commanded;
    this.tool = "select";
    this.lasso = host.querySelector(".map-lasso polyline");
    this.points = host.querySelector(".map-points");
    this.labels = host.querySelector(".map-labels");
    this.words = this.labels.getContext("2d");
    this.camera = { x: 0, y: 0, scale: 10, width: 1, height: 1, ratio: 1 };
    this.isFitted = true;
    this.slots = new Uint32Array(0);
    this.selected = -1;
    this.by = "goal";
    this.widths = new Map(); // of texts already measured
    this.times = []; // script milliseconds of the last frames
    this.motion = matchMedia("(prefers-reduced-motion: no-preference)");
    this.renderer = this.makeRenderer();
    this.palette = readPalette(host);
    this.family = getComputedStyle(host).fontFamily;
    this.listen();
    this.resize();
  }

  makeRenderer() {
    if (this.host.dataset.renderer !== "canvas") {
      try {
        return new WebglRenderer(this.points);
      } catch {
        this.points.replaceWith((this.points = this.points.cloneNode(false)));
      }
    }
    this.host.dataset.renderer = "canvas";
    return new CanvasRenderer(this.points);
  }

  listen() {
    new ResizeObserver(() => this.resize()).observe(this.host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    this.points.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.points.addEventListener("webglcontextrestored", () => {
      this.renderer = this.makeRenderer();
      this.show(this.slots, this.by);
    });
    this.host.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.host.addEventListener("pointerdown", (event) => this.press(event));
    this.host.addEventListener("pointermove", (event) => this.move(event));
    this.host.addEventListener("pointerup", (event) => this.release(event));
    this.host.addEventListener("pointercancel", () => this.letGo());
    this.host.addEventListener("keydown", (event) => this.key(event));
  }

  repaint() {
    this.palette = readPalette(this.host);
    this.draw();
  }

  resize() {
    const box = this.host.getBoundingClientRect();
    const ratio = Math.min(devicePixelRatio || 1, 2);
    Object.assign(this.camera, { width: Math.max(box.width, 1), height: Math.max(box.height, 1), ratio });
    for (const canvas of [this.points, this.labels]) {
      canvas.width = Math.round(this.camera.width * ratio);
      canvas.height = Math.round(this.camera.height * ratio);
    }
    this.show(this.slots, this.by);
  }

  /** Lay these slots out anew, grouped by a column. */
  show(slots, by) {
    const began = performance.now();
    this.slots = slots;
    this.by = by;
    this.laidOutAt = performance.now();
    this.layout = layOut(this.store, slots, by, {
      width: this.camera.width - 2 * MARGIN,
      height: this.camera.height - 2 * MARGIN,
      namePixels: NAME_PIXELS,
      mostScale: FIT_MOST,
    });
    const places = new Float32Array(slots.length * 2);
    this.placeOf = new Uint32Array(this.store.capacity);
    this.looks = new Uint8Array(slots.length * 4);
    this.flashed = new Float32Array(slots.length);
    this.layout.order.forEach((slot, i) => {
      places[2 * i] = this.layout.xs[slot];
      places[2 * i + 1] = this.layout.ys[slot];
      this.placeOf[slot] = i;
    });
    this.renderer.setPlaces(places);
    if (this.isFitted) this.fit();
    this.isMoved = true;
    this.layoutMs = performance.now() - began;
    this.changed();
  }

  /** The same slots as before, soon: laying 10,000 out costs too much to do at each frame. */
  showSoon(make) {
    if (this.waiting) return;
    const wait = Math.max(RELAYOUT_MS - (performance.now() - (this.laidOutAt ?? -RELAYOUT_MS)), 0);
    this.waiting = setTimeout(() => {
      this.waiting = null;
      this.show(make(), this.by);
    }, wait);
  }

  /** These slots (all, without any named) have changed: tell the renderer and draw. */
  changed(slots = this.layout.order) {
    const began = performance.now();
    const { order } = this.layout;
    for (const slot of slots) {
      const place = this.placeOf[slot];
      if (order[place] === slot) this.setLook(slot, place); // else it is not shown
    }
    this.renderer.setLooks(this.looks, this.flashed);
    this.movesUntil = this.motion.matches ? performance.now() + FLASH_MS : 0;
    this.spent = (this.spent ?? 0) + performance.now() - began; // reading the frame counts, too
    this.draw();
  }

  setLook(slot, place) {
    const { store, looks } = this;
    looks[4 * place] = store.state[slot];
    looks[4 * place + 1] = store.kind[slot];
    looks[4 * place + 2] = (slot === this.selected ? 1 : 0) | (store.marked[slot] << 1);
    this.flashed[place] = this.motion.matches ? store.flashed[slot] : 0;
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const began = performance.now();
      this.renderer.draw(this.camera, this.palette, began);
      const isDue = this.spent !== undefined && began - (this.labelledAt ?? -LABELS_MS) >= LABELS_MS;
      if (isDue || this.isMoved) this.drawLabels(began);
      this.times.push(performance.now() - began + (this.spent ?? 0));
      if (this.times.length > 600) this.times.shift();
      this.spent = undefined;
      if (performance.now() < (this.movesUntil ?? 0) && !document.hidden) this.draw();
    });
  }

  fit() {
    const { camera, layout } = this;
    const scale = Math.min(
      (camera.width - 2 * MARGIN) / layout.width,
      (camera.height - 2 * MARGIN) / layout.height,
      FIT_MOST,
    );
    camera.scale = Math.max(scale, LEAST_SCALE);
    camera.x = -MARGIN / camera.scale;
    camera.y = -MARGIN / camera.scale;
    this.isFitted = true;
    this.isMoved = true;
    this.draw();
  }

  zoom(factor, x = this.camera.width / 2, y = this.camera.height / 2) {
    const { camera } = this;
    const scale = Math.min(Math.max(camera.scale * factor, LEAST_SCALE), MOST_SCALE);
    camera.x += x / camera.scale - x / scale;
    camera.y += y / camera.scale - y / scale;
    camera.scale = scale;
    this.isFitted = false;
    this.isMoved = true;
    this.draw();
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== this.host) return; // the page scrolls
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * 0.0022), event.offsetX, event.offsetY);
  }

  /** A drag catches agents; with the middle button, Alt, the hand or a finger it moves the map. */
  press(event) {
    if (event.button > 1 || event.target.closest("a, button")) return;
    const moves = event.button === 1 || event.altKey || this.tool === "move" || event.pointerType === "touch";
    if (event.button === 1) event.preventDefault();
    this.pressed = { x: event.clientX, y: event.clientY, isDrag: false, moves, path: [[event.offsetX, event.offsetY]] };
    this.host.setPointerCapture(event.pointerId);
  }

  move(event) {
    const { pressed } = this;
    if (!pressed) return;
    const dx = event.clientX - pressed.x;
    const dy = event.clientY - pressed.y;
    if (!pressed.isDrag && Math.hypot(dx, dy) < CLICK_PIXELS) return;
    pressed.isDrag = true;
    if (!pressed.moves) return this.drawLasso(event);
    Object.assign(pressed, { x: event.clientX, y: event.clientY });
    this.camera.x -= dx / this.camera.scale;
    this.camera.y -= dy / this.camera.scale;
    this.isFitted = false;
    this.isMoved = true;
    this.draw();
  }

  drawLasso(event) {
    const { path } = this.pressed;
    const [x, y] = path[path.length - 1];
    if (Math.hypot(event.offsetX - x, event.offsetY - y) < LASSO_STEP) return;
    path.push([event.offsetX, event.offsetY]);
    this.lasso.setAttribute("points", path.map((point) => point.join(",")).join(" "));
  }

  release(event) {
    const { pressed } = this;
    this.letGo();
    if (!pressed) return;
    const how = { isMore: event.ctrlKey || event.metaKey, isRange: event.shiftKey };
    if (!pressed.isDrag) this.picked(this.slotAt(event.offsetX, event.offsetY), how);
    else if (!pressed.moves) this.lassoed(within(pressed.path.map((point) => this.worldAt(...point)), this.layout), how.isMore || how.isRange);
  }

  letGo() {
    this.pressed = null;
    this.lasso.setAttribute("points", "");
  }

  worldAt(px, py) {
    return [px / this.camera.scale + this.camera.x, py / this.camera.scale + this.camera.y];
  }

  /** The agent under a pixel; the nearest within a cell, so that small ones can be hit. */
  slotAt(px, py) {
    const { camera, layout } = this;
    const [x, y] = this.worldAt(px, py);
    let best = -1;
    let nearest = Math.max(0.71, 8 / camera.scale);
    for (const slot of layout.order) {
      const distance = Math.hypot(layout.xs[slot] - x, layout.ys[slot] - y);
      if (distance < nearest) [best, nearest] = [slot, distance];
    }
    return best;
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("a, button")) return;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) this.picked(this.neighbour(...steps[event.key]), { isMore: event.shiftKey, isStep: true });
    else if (event.key === " ") this.picked(this.selected, { isToggle: true });
    else if (event.key === "Enter" && this.selected >= 0) this.opened(this.selected);
    else if (event.key === "Escape") this.picked(-1);
    else if (event.key === "+" || event.key === "=") this.zoom(1.3);
    else if (event.key === "-") this.zoom(1 / 1.3);
    else if (event.key === "0") this.fit();
    else if (!this.commanded(event.key)) return;
    event.preventDefault();
  }

  /** The nearest agent in a direction; the first one when none is selected. */
  neighbour(dx, dy) {
    const { layout, selected } = this;
    if (selected < 0 || !this.store.alive[selected]) return layout.order[0] ?? -1;
    const [x, y] = [layout.xs[selected], layout.ys[selected]];
    let best = selected;
    let least = Infinity;
    for (const slot of layout.order) {
      const ahead = (layout.xs[slot] - x) * dx + (layout.ys[slot] - y) * dy;
      const aside = Math.abs((layout.xs[slot] - x) * dy) + Math.abs((layout.ys[slot] - y) * dx);
      const cost = ahead + 3 * aside;
      if (ahead > 0.2 && cost < least) [best, least] = [slot, cost];
    }
    return best;
  }

  /** Mark an agent and bring it into view. */
  select(slot) {
    this.selected = slot;
    if (slot >= 0 && this.layout.xs[slot]) this.reveal(slot);
    this.changed();
  }

  reveal(slot) {
    const { camera, layout } = this;
    const x = (layout.xs[slot] - camera.x) * camera.scale;
    const y = (layout.ys[slot] - camera.y) * camera.scale;
    if (x >= 0 && y >= 0 && x <= camera.width && y <= camera.height) return;
    camera.x = layout.xs[slot] - camera.width / camera.scale / 2;
    camera.y = layout.ys[slot] - camera.height / camera.scale / 2;
    this.isFitted = false;
    this.isMoved = true;
  }

  /** What is to be seen at this distance, for the legend. */
  get level() {
    const { scale } = this.camera;
    if (scale < BLOCKS_BELOW) return "From far, a block is a group and its bands the shares of its states. Closer";
    return scale < NAMES_FROM ? "An agent is a shape" : "An agent is a shape with its name and last states";
  }

  drawLabels(now) {
    const { words, camera, palette } = this;
    this.isMoved = false;
    this.labelledAt = now;
    this.font = ""; // a canvas that was resized has forgotten it
    words.setTransform(camera.ratio, 0, 0, camera.ratio, 0, 0);
    words.clearRect(0, 0, camera.width, camera.height);
    words.textBaseline = "alphabetic";
    for (const group of this.layout.groups) {
      const x = (group.x - camera.x) * camera.scale;
      const y = (group.y - camera.y) * camera.scale;
      const width = group.width * camera.scale;
      const height = group.height * camera.scale;
      if (x > camera.width || y > camera.height || x + width < 0 || y + height < 0) continue;
      if (camera.scale < BLOCKS_BELOW) this.drawBlock(group, x, y, width, height);
      if (camera.scale >= NAMES_FROM) this.drawNames(group);
      if (width < 34) continue;
      this.drawTitle(group, x, y, width, palette);
    }
  }

  drawTitle(group, x, y, width, palette) {
    const { words } = this;
    const room = this.camera.scale * this.layout.head;
    const size = Math.min(Math.max(room * 0.72, 9), 13);
    if (room < size) return; // between the blocks
    this.useFont(`600 ${size}px ${this.family}`);
    words.fillStyle = palette.css.ink;
    const counts = tally(this.store, group, STATES.length);
    const said = [2, 4, 6].filter((state) => counts[state]).map((state) => `${STATE_SHAPES[state]} ${counts[state]}`);
    const tail = [String(group.slots.length), ...said, ...fuelWords(group.goal)].join("  ");
    const tailWidth = this.widthOf(tail, size);
    const base = y + room - size * 0.35;
    const rest = width - tailWidth - 8;
    const title = this.clippedTitle(group, rest > 40 ? rest : width, size);
    words.fillText(title, x, base);
    if (rest <= 40) return;
    words.fillStyle = palette.css.quiet;
    words.fillText(tail, x + this.widthOf(title, size) + 8, base);
  }

  /** Setting a font is parsed each time, and a map has a thousand names: only another one is set. */
  useFont(font) {
    if (this.font === font) return;
    this.font = font;
    this.words.font = font;
  }

  widthOf(text, size) {
    const key = `${size}:${text}`;
    let width = this.widths.get(key);
    if (width === undefined) {
      width = this.words.measureText(text).width;
      if (this.widths.size >= WIDTHS_MOST) this.widths.clear();
      this.widths.set(key, width);
    }
    return width;
  }

  /** Measuring text is what costs most here: asked again only when the room has changed. */
  clippedTitle(group, width, size) {
    const room = `${Math.round(width / 8)}:${size}`;
    if (group.room !== room) {
      group.room = room;
      group.clipped = clipped(this.words, group.title, width);
    }
    return group.clipped;
  }

  /** From far away a group is a block whose bands are the shares of its states. */
  drawBlock(group, x, y, width, height) {
    const { words, palette, camera } = this;
    const counts = tally(this.store, group, STATES.length);
    let top = y + this.layout.head * camera.scale;
    const tall = height - this.layout.head * camera.scale;
    words.globalAlpha = 0.55;
    for (const state of [4, 6, 2, 1, 0, 3, 5]) {
      const part = (counts[state] / group.slots.length) * tall;
      words.fillStyle = palette.css[STATE_TONES[state]];
      words.fillRect(x, top, width, part);
      top += part;
    }
    words.globalAlpha = 1;
  }

  drawNames(group) {
    const { words, camera, layout, store, palette } = this;
    this.useFont(`500 10px ${this.family}`);
    words.fillStyle = palette.css.ink;
    words.textAlign = "center";
    for (const slot of group.slots) {
      const x = (layout.xs[slot] - camera.x) * camera.scale;
      const y = (layout.ys[slot] + 0.47 - camera.y) * camera.scale;
      if (x < -60 || y < 0 || x > camera.width + 60 || y > camera.height + 12) continue;
      words.fillText(clipped(words, store.names[store.agent[slot]] ?? "", camera.scale - 4), x, y);
      const trail = store.trailOf(slot);
      if (trail.length < 2) continue;
      words.fillStyle = palette.css.quiet;
      words.fillText(trail.map((state) => STATE_SHAPES[state]).join(""), x, y - camera.scale * 0.86);
      words.fillStyle = palette.css.ink;
    }
    words.textAlign = "left";
  }
}

/** When the budget of a group's Goal ends at the rate seen so far, where that is soon. */
function fuelWords(goal) {
  if (!goal || goal.phase !== "Running" || goal.exhausts === null) return [];
  const left = goal.exhausts - Date.now();
  return left > 0 && left < SOON_MS ? [`▲ empty in ${duration(left)}`] : [];
}

/** The text with its middle left out until it fits: names that begin alike still differ, and of a
 * short piece the end is what tells them apart. */
function clipped(words, text, width) {
  const whole = words.measureText(text).width;
  if (whole <= width) return text;
  for (let kept = Math.floor((text.length * width) / whole); kept > 1; kept -= 1) {
    const head = kept < NUMBERED ? 1 : Math.ceil(kept * 0.35);
    const shorter = `${text.slice(0, head)}…${text.slice(text.length - (kept - head))}`;
    if (words.measureText(shorter).width <= width) return shorter;
  }
  return "";
}
