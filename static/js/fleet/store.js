/* The fleet in the browser: columns by slot, Goals by number; applies frames, notices a gap. */

import { DELTA, SNAPSHOT, UNKNOWN, UNKNOWN_CONFIDENCE, UNKNOWN_SHARE, uuid } from "./frames.js";

// The place in this list is the code in the frame (agents/fleet/domain.py).
export const STATES = ["pending", "running", "paused", "succeeded", "failed", "stopped", "lost"];
export const STATE_SHAPES = ["○", "▶", "‖", "✓", "✕", "■", "?"];
export const STATE_TONES = ["idle", "active", "warning", "good", "danger", "idle", "warning"];
export const FOREIGN = 4; // the kind of a workload that is not ours
const TRAIL = 6; // last states kept for each run
const NONE = 15; // no state, in a trail of four bits each

const COLUMNS = [
  ["uid", Uint8Array, 16], ["namespace", Uint32Array, 1], ["goal", Uint32Array, 1],
  ["agent", Uint32Array, 1], ["role", Uint32Array, 1], ["task", Uint32Array, 1], ["kind", Uint8Array, 1],
  ["gpus", Uint16Array, 1], ["created", Float64Array, 1], ["state", Uint8Array, 1],
  ["confidence", Uint8Array, 1], ["node", Uint32Array, 1], ["span", Uint32Array, 1],
  ["gpu_ms", Float64Array, 1], ["changed", Float64Array, 1], ["alive", Uint8Array, 1],
  ["trail", Uint32Array, 1], ["flashed", Float64Array, 1], ["marked", Uint8Array, 1],
];
const ADDED = ["namespace", "goal", "agent", "role", "task", "kind", "gpus", "created"];
const CHANGED = ["confidence", "node", "span", "gpu_ms", "changed"];

export class FleetStore {
  constructor() {
    this.epoch = null;
    this.clear(1024);
  }

  clear(capacity) {
    this.names = [];
    this.goals = [];
    this.top = 0; // slots below it have been used
    this.count = 0;
    this.capacity = capacity;
    for (const [name, type, width] of COLUMNS) this[name] = new type(capacity * width);
  }

  /** What changed: `{whole, membership, slots}`; null when a frame was missed. */
  apply(frame, now) {
    const isWhole = frame.kind === SNAPSHOT;
    if (!isWhole) {
      const step = frame.kind === DELTA ? 1 : 0;
      if (this.epoch !== frame.epoch || frame.sequence !== this.sequence + step) return null;
    } else {
      this.beforeClear?.();
      this.clear(Math.max(1024, frame.added.length * 2));
    }
    this.epoch = frame.epoch;
    this.sequence = frame.sequence;
    this.names.push(...frame.names);
    this.applyGoals(frame.goals);
    this.applyAdded(frame.added);
    this.applyChanged(frame.changed, isWhole ? 0 : now);
    this.applyRemoved(frame.removed);
    return {
      whole: isWhole,
      membership: isWhole || frame.added.length > 0 || frame.removed.length > 0,
      slots: frame.changed.slot ?? new Uint32Array(0),
      goals: frame.goals.length > 0,
    };
  }

  applyGoals(rows) {
    for (let i = 0; i < rows.length; i += 1) {
      this.goals[rows.goal[i]] = {
        number: rows.goal[i],
        uid: uuid(rows.uid, i),
        namespace: this.names[rows.namespace[i]],
        name: this.names[rows.name[i]],
        phase: this.names[rows.phase[i]],
        unit: this.names[rows.unit[i]],
        settled: share(rows.settled[i]),
        reserved: share(rows.reserved[i]),
        waiting: rows.waiting[i],
        tokens: rows.tokens[i] === UNKNOWN ? null : rows.tokens[i],
        exhausts: Number.isNaN(rows.exhausts[i]) ? null : rows.exhausts[i],
        changed: rows.changed[i],
      };
    }
  }

  applyAdded(rows) {
    for (let i = 0; i < rows.length; i += 1) {
      const slot = rows.slot[i];
      if (slot >= this.capacity) this.grow(slot + 1);
      if (slot >= this.top) this.top = slot + 1;
      for (const name of ADDED) this[name][slot] = rows[name][i];
      this.uid.set(rows.uid.subarray(i * 16, i * 16 + 16), slot * 16);
      if (!this.alive[slot]) {
        this.alive[slot] = 1;
        this.count += 1;
        this.state[slot] = NONE;
        this.trail[slot] = 0xffffffff;
      }
    }
  }

  applyChanged(rows, now) {
    for (let i = 0; i < rows.length; i += 1) {
      const slot = rows.slot[i];
      if (this.state[slot] !== rows.state[i]) {
        this.trail[slot] = ((this.trail[slot] << 4) | rows.state[i]) >>> 0;
        this.state[slot] = rows.state[i];
        this.flashed[slot] = now;
      }
      for (const name of CHANGED) this[name][slot] = rows[name][i];
    }
  }

  applyRemoved(rows) {
    for (let i = 0; i < rows.length; i += 1) {
      this.alive[rows.slot[i]] = 0;
      this.marked[rows.slot[i]] = 0;
      this.count -= 1;
    }
  }

  grow(least) {
    this.capacity = Math.max(least, this.capacity * 2);
    for (const [name, type, width] of COLUMNS) {
      const grown = new type(this.capacity * width);
      grown.set(this[name]);
      this[name] = grown;
    }
  }

  /** How many are not ours. */
  foreign() {
    let count = 0;
    for (let slot = 0; slot < this.top; slot += 1) if (this.alive[slot] && this.kind[slot] === FOREIGN) count += 1;
    return count;
  }

  goalOf(slot) {
    return this.goal[slot] === UNKNOWN ? null : this.goals[this.goal[slot]] ?? null;
  }

  /** One run in words, for people. */
  run(slot) {
    const name = (column) => this.names[this[column][slot]] ?? "";
    const code = this.confidence[slot];
    return {
      slot,
      uid: uuid(this.uid, slot),
      namespace: name("namespace"),
      agent: name("agent"),
      role: name("role"),
      task: name("task"),
      node: name("node"),
      span: name("span"),
      state: this.state[slot],
      kind: this.kind[slot],
      isForeign: this.kind[slot] === FOREIGN,
      gpus: this.gpus[slot],
      gpuMs: this.gpu_ms[slot],
      confidence: code === UNKNOWN_CONFIDENCE ? null : code / 200,
      created: this.created[slot],
      changed: this.changed[slot],
      goal: this.goalOf(slot),
      trail: this.trailOf(slot),
    };
  }

  /** The last states of a run, oldest first. */
  trailOf(slot) {
    const states = [];
    for (let i = TRAIL - 1; i >= 0; i -= 1) {
      const state = (this.trail[slot] >>> (4 * i)) & 15;
      if (state !== NONE) states.push(state);
    }
    return states;
  }

  slotOf(uid) {
    for (let slot = 0; slot < this.top; slot += 1) {
      if (this.alive[slot] && uuid(this.uid, slot) === uid) return slot;
    }
    return -1;
  }
}

function share(code) {
  return code === UNKNOWN_SHARE ? null : code / 100;
}
