/* The socket of the map: reconnects, asks for a snapshot after a gap, judges what is stale. */

import { decode } from "./frames.js";

export const STALE_AFTER_MS = 5000;
const BACKOFF_MS = [250, 500, 1000, 2000, 4000, 8000];
const ASK_AGAIN_MS = 2000; // a snapshot that does not come is asked for again
const SIGNED_OUT = 4401;
const FORBIDDEN = 4403;
const TOO_MANY = 4429;

export class FleetFeed {
  /** `changed(result)` after each frame that changed the store; `judged(state, words)` twice a second. */
  constructor(url, store, { changed, judged }) {
    this.url = url;
    this.store = store;
    this.changed = changed;
    this.judged = judged;
    this.attempts = 0;
    this.heardAt = 0;
    this.askedAt = 0;
    this.frame = null;
    this.ended = "";
    this.open();
    this.timer = setInterval(() => this.judge(), 500);
    addEventListener("pagehide", () => this.close());
  }

  open() {
    this.socket = new WebSocket(this.url);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("message", (event) => this.hear(event.data));
    this.socket.addEventListener("close", (event) => this.lost(event.code));
  }

  close() {
    this.isClosing = true;
    clearInterval(this.timer);
    this.socket.close();
  }

  lost(code) {
    if (this.isClosing) return;
    if (code === SIGNED_OUT) this.ended = "signed out, or your rights have changed: reload";
    else if (code === FORBIDDEN) this.ended = "no namespace that you may see";
    else if (code === TOO_MANY) this.ended = "too many open maps";
    this.judge();
    if (code === SIGNED_OUT || code === FORBIDDEN) return;
    const wait = BACKOFF_MS[Math.min(this.attempts, BACKOFF_MS.length - 1)];
    this.attempts += 1;
    setTimeout(() => this.open(), wait * (0.75 + Math.random() / 2));
  }

  /** While held, what comes is not shown; let go, everything is asked for anew. */
  hold(isHeld) {
    this.isHeld = isHeld;
    if (!isHeld) {
      this.askedAt = 0;
      this.askForSnapshot();
    }
  }

  hear(buffer) {
    if (this.isHeld) return;
    const began = performance.now();
    let result = null;
    try {
      const frame = decode(buffer);
      result = this.store.apply(frame, performance.now());
      if (result) this.frame = frame;
    } catch {
      result = null;
    }
    if (result === null) {
      this.askForSnapshot();
      return;
    }
    this.heardAt = Date.now();
    this.attempts = 0;
    this.ended = "";
    result.ms = performance.now() - began;
    if (result.whole || result.slots.length || result.membership || result.goals) this.changed(result);
    this.judge(); // last: what it says of an empty map is said of one that is laid out
  }

  askForSnapshot() {
    const now = Date.now();
    if (now - this.askedAt < ASK_AGAIN_MS || this.socket.readyState !== WebSocket.OPEN) return;
    this.askedAt = now;
    this.socket.send("snapshot");
  }

  /** Milliseconds since the database was last known to be read; null while that never was. */
  age() {
    if (!this.frame || this.frame.databaseAge === null) return null;
    return this.frame.databaseAge + (Date.now() - this.heardAt);
  }

  judge() {
    const age = this.age();
    if (this.isHeld) return;
    if (this.ended) this.judged("stale", this.ended);
    else if (age === null) this.judged("connecting", "connecting");
    else if (age > STALE_AFTER_MS) this.judged("stale", `stale: ${Math.round(age / 1000)} s old`);
    else this.judged("live", "live");
  }
}
