/* Which agents are chosen: a mark in the store for each, kept by uid when everything is renumbered. */

import { uuid } from "./frames.js";
import { FOREIGN } from "./store.js";

export const MAX_LINKED = 40; // uids of a permalink; a longer address is cut by some programs

export class Selection {
  constructor(store) {
    this.store = store;
    this.anchor = -1; // where a range begins
    this.kept = null; // uids, while a snapshot replaces the store
    store.beforeClear = () => (this.kept = new Set([...(this.kept ?? []), ...this.uids()]));
  }

  get size() {
    let count = 0;
    const { marked, top } = this.store;
    for (let slot = 0; slot < top; slot += 1) count += marked[slot];
    return count;
  }

  has(slot) {
    return this.store.marked[slot] === 1;
  }

  /** These and no others; `-1` is nobody. */
  set(slots) {
    this.store.marked.fill(0);
    this.add(slots);
  }

  add(slots) {
    for (const slot of slots) if (slot >= 0 && this.store.alive[slot]) this.store.marked[slot] = 1;
  }

  toggle(slot) {
    if (slot >= 0 && this.store.alive[slot]) this.store.marked[slot] ^= 1;
    this.anchor = slot;
  }

  /** From the anchor to this one, in the order in which they are shown. */
  range(slot, order) {
    const from = Math.max(order.indexOf(this.anchor), 0);
    const to = order.indexOf(slot);
    this.set(order.subarray(Math.min(from, to), Math.max(from, to) + 1));
  }

  uids() {
    return this.found(() => true);
  }

  /** Those of ours: what is not ours cannot be steered. */
  steerable() {
    return this.found((slot) => this.store.kind[slot] !== FOREIGN);
  }

  found(isWanted) {
    const { store } = this;
    const found = [];
    for (let slot = 0; slot < store.top; slot += 1) if (store.marked[slot] && isWanted(slot)) found.push(uuid(store.uid, slot));
    return found;
  }

  /** Mark those again that a snapshot, or the address, named; true when that was to be done. */
  restore(uids = this.kept) {
    this.kept = null;
    if (!uids || !uids.size) return false;
    const { store } = this;
    for (let slot = 0; slot < store.top; slot += 1) {
      if (store.alive[slot] && uids.has(uuid(store.uid, slot))) store.marked[slot] = 1;
    }
    return true;
  }
}

/** Slots whose places lie within a polygon of world points `[[x, y], ...]`. */
export function within(polygon, layout) {
  const xs = polygon.map((point) => point[0]);
  const ys = polygon.map((point) => point[1]);
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  const found = [];
  for (const slot of layout.order) {
    const x = layout.xs[slot];
    const y = layout.ys[slot];
    if (x >= box[0] && y >= box[1] && x <= box[2] && y <= box[3] && isInside(polygon, x, y)) found.push(slot);
  }
  return found;
}

function isInside(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
    const [ax, ay] = polygon[i];
    const [bx, by] = polygon[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
