/* Places of agents on the map: a block of cells for each group, blocks flowing in rows. */

import { FOREIGN } from "./store.js";

export const CELL = 1; // world units; the camera decides how many pixels that is
const HEAD = 1.6; // first guess of the room for a group's name, in cells
const LEAST_HEAD = 0.5;
const MOST_HEAD = 5; // beyond it names would take more room than agents
const GAP = 1; // between blocks
const LEAST_NAME = 24; // pixels: three letters and what says that there were more
const WIDTHS = [0.7, 0.85, 1, 1.06, 1.15, 1.3, 1.5, 1.8, 2.3]; // tried against the ideal
const BY_NAME = new Intl.Collator("en", { numeric: true }); // goal-2 before goal-10
const FOREIGN_GROUP = "foreign"; // Goals have numbers
const GROUPS = ["goal", "namespace", "node", "role"];

export { GROUPS };

/** `{groups, order, xs, ys, width, height}` for the shown slots in a box of pixels.

`namePixels` is what a group's name needs when the whole is in view, `mostScale` how large a cell
then is at most. */
export function layOut(store, slots, by, { width, height, namePixels, mostScale }) {
  const groups = groupsOf(store, slots, by);
  const box = { width, height, mostScale };
  const scale = best(groups, box, HEAD).scale;
  const wanted = Math.min(Math.max((1.3 * namePixels) / scale, LEAST_HEAD), MOST_HEAD);
  const head = areMostNamed(groups, best(groups, box, wanted).scale) ? wanted : LEAST_HEAD;
  return place(store, groups, slots.length, best(groups, box, head).wide, head);
}

/** Whether something would be left of most names; if not, their room is the agents'. */
function areMostNamed(groups, scale) {
  const named = groups.filter((group) => blockSize(group.slots.length)[0] * scale >= LEAST_NAME);
  return 2 * named.length >= groups.length;
}

/** The width of the rows, in cells, at which the whole is seen largest. */
function best(groups, { width, height, mostScale }, head) {
  const area = groups.reduce((sum, group) => sum + blockArea(group.slots.length, head), 0);
  let found = { scale: 0, wide: 8 };
  for (const factor of WIDTHS) {
    const wide = Math.max(Math.sqrt((area * width) / height) * factor, 8);
    const [across, down] = extent(groups, wide, head);
    const scale = Math.min(width / across, height / down, mostScale);
    if (scale > found.scale) found = { scale, wide };
  }
  return found;
}

/** Width and height of the blocks in rows of a width, in cells. */
function extent(groups, wide, head) {
  let [x, y, tallest, right] = [0, 0, 0, 1];
  for (const group of groups) {
    const [columns, rows] = blockSize(group.slots.length);
    if (x > 0 && x + columns > wide) [x, y, tallest] = [0, y + tallest + GAP, 0];
    x += columns + GAP;
    right = Math.max(right, x - GAP);
    tallest = Math.max(tallest, rows + head);
  }
  return [right, Math.max(y + tallest, 1)];
}

function place(store, groups, total, wide, head) {
  const xs = new Float32Array(store.capacity);
  const ys = new Float32Array(store.capacity);
  const order = new Uint32Array(total);
  const [width, height] = extent(groups, wide, head);
  let [x, y, tallest, placed] = [0, 0, 0, 0];
  for (const group of groups) {
    const [columns, rows] = blockSize(group.slots.length);
    if (x > 0 && x + columns > wide) [x, y, tallest] = [0, y + tallest + GAP, 0];
    Object.assign(group, { x, y, width: columns, height: rows + head });
    for (let i = 0; i < group.slots.length; i += 1) {
      const slot = group.slots[i];
      xs[slot] = x + (i % columns) + 0.5;
      ys[slot] = y + head + Math.floor(i / columns) + 0.5;
      order[placed] = slot;
      placed += 1;
    }
    x += columns + GAP;
    tallest = Math.max(tallest, rows + head);
  }
  return { groups, order, head, xs, ys, width, height };
}

function blockSize(count) {
  const columns = Math.max(5, Math.ceil(Math.sqrt(count * 1.6)));
  return [columns, Math.ceil(count / columns)];
}

function blockArea(count, head) {
  const [columns, rows] = blockSize(count);
  return (columns + GAP) * (rows + head + GAP);
}

function groupsOf(store, slots, by) {
  const groups = new Map();
  for (const slot of slots) {
    const isApart = by === "goal" && store.kind[slot] === FOREIGN;
    const key = isApart ? FOREIGN_GROUP : by === "goal" ? store.goal[slot] : store[by][slot];
    let group = groups.get(key);
    if (!group) groups.set(key, (group = { key, slots: [], ...titleOf(store, slot, by) }));
    group.slots.push(slot);
  }
  const sorted = [...groups.values()];
  sorted.sort((one, other) => one.isForeign - other.isForeign || BY_NAME.compare(one.title, other.title));
  return sorted;
}

function titleOf(store, slot, by) {
  if (by !== "goal") {
    const title = store.names[store[by][slot]];
    return { title: title || (by === "node" ? "no node known" : "none"), goal: null, isForeign: false };
  }
  if (store.kind[slot] === FOREIGN) return { title: "not ours", goal: null, isForeign: true };
  const goal = store.goalOf(slot);
  return { title: goal ? goal.name : "no Goal known", goal, isForeign: false };
}

/** How many of each state a group holds. */
export function tally(store, group, states) {
  const counts = new Array(states).fill(0);
  for (const slot of group.slots) counts[store.state[slot]] += 1;
  return counts;
}
