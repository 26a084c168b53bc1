/* Places of agents on the map: a block of cells for each group, blocks flowing in rows. */

export const CELL = 1; // world units; the camera decides how many pixels that is
const HEAD = 1.6; // first guess of the room for a group's name, in cells
const LEAST_HEAD = 0.5;
const MOST_HEAD = 5; // beyond it names would take more room than agents
const GAP = 1; // between blocks
const GROUPS = ["goal", "namespace", "node", "role"];

export { GROUPS };

/** `{groups, order, xs, ys, width, height}` for the shown slots in a box of pixels.

`namePixels` is what a group's name needs when the whole is in view, `mostScale` how large a cell
then is at most. */
export function layOut(store, slots, by, { width, height, namePixels, mostScale }) {
  const groups = groupsOf(store, slots, by);
  const guess = place(store, groups, slots.length, width / height, HEAD);
  const scale = Math.min(width / guess.width, height / guess.height, mostScale);
  const head = Math.min(Math.max((1.3 * namePixels) / scale, LEAST_HEAD), MOST_HEAD);
  return place(store, groups, slots.length, width / height, head);
}

function place(store, groups, total, aspect, head) {
  const area = groups.reduce((sum, group) => sum + blockArea(group.slots.length, head), 0);
  const width = Math.max(Math.sqrt(area * aspect) * 1.06, 8);
  const xs = new Float32Array(store.capacity);
  const ys = new Float32Array(store.capacity);
  let x = 0;
  let y = 0;
  let tallest = 0;
  let right = 0;
  const order = new Uint32Array(total);
  let placed = 0;
  for (const group of groups) {
    const [columns, rows] = blockSize(group.slots.length);
    if (x > 0 && x + columns > width) {
      x = 0;
      y += tallest + GAP;
      tallest = 0;
    }
    Object.assign(group, { x, y, width: columns, height: rows + head });
    for (let i = 0; i < group.slots.length; i += 1) {
      const slot = group.slots[i];
      xs[slot] = x + (i % columns) + 0.5;
      ys[slot] = y + head + Math.floor(i / columns) + 0.5;
      order[placed] = slot;
      placed += 1;
    }
    x += columns + GAP;
    right = Math.max(right, x - GAP);
    tallest = Math.max(tallest, rows + head);
  }
  return { groups, order, head, xs, ys, width: Math.max(right, 1), height: Math.max(y + tallest, 1) };
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
    const key = by === "goal" ? store.goal[slot] : store[by][slot];
    let group = groups.get(key);
    if (!group) groups.set(key, (group = { key, slots: [], ...titleOf(store, slot, by) }));
    group.slots.push(slot);
  }
  const sorted = [...groups.values()];
  sorted.sort((one, other) => (one.title < other.title ? -1 : one.title > other.title ? 1 : 0));
  return sorted;
}

function titleOf(store, slot, by) {
  if (by !== "goal") {
    const title = store.names[store[by][slot]];
    return { title: title || (by === "node" ? "no node known" : "none"), goal: null };
  }
  const goal = store.goalOf(slot);
  return { title: goal ? goal.name : "no Goal known", goal };
}

/** How many of each state a group holds. */
export function tally(store, group, states) {
  const counts = new Array(states).fill(0);
  for (const slot of group.slots) counts[store.state[slot]] += 1;
  return counts;
}
