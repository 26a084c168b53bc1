/* The past of the map: a slider over the last 24 hours, each minute fetched as one frame. */

import { decode, SNAPSHOT } from "./frames.js";
import { setText } from "./dom.js";

const MINUTE_MS = 60_000;
const MINUTES = 24 * 60;
const SETTLE_MS = 150; // a slider that is being dragged asks for nothing in between

export class Past {
  /** `shown(frame)` with a frame of the past; `left()` when the live map is wanted again. */
  constructor(host, { shown, left, failed }) {
    this.host = host;
    this.shown = shown;
    this.left = left;
    this.failed = failed;
    this.at = null; // milliseconds since 1970, on a whole minute; null is live
    this.slider = host.querySelector("[type=range]");
    this.clock = host.querySelector("output");
    this.slider.max = String(MINUTES);
    this.slider.value = String(MINUTES);
    this.slider.addEventListener("input", () => this.slid());
    host.querySelector("[data-live-again]").addEventListener("click", () => this.live());
    this.say();
  }

  slid() {
    const ago = MINUTES - Number(this.slider.value);
    if (ago === 0) return this.live();
    this.at = floor(Date.now()) - ago * MINUTE_MS;
    this.say();
    clearTimeout(this.due);
    this.due = setTimeout(() => this.fetch(), SETTLE_MS);
  }

  /** As the address asks for it; an unreadable or too old moment is the present. */
  open(text) {
    const at = floor(Date.parse(text));
    const ago = (floor(Date.now()) - at) / MINUTE_MS;
    if (!(ago >= 1 && ago <= MINUTES)) return;
    this.at = at;
    this.slider.value = String(MINUTES - ago);
    this.say();
    this.fetch();
  }

  live() {
    clearTimeout(this.due);
    const wasPast = this.at !== null;
    this.at = null;
    this.slider.value = String(MINUTES);
    this.say();
    if (wasPast) this.left();
  }

  get text() {
    return this.at === null ? "" : new Date(this.at).toISOString().replace(":00.000Z", "Z");
  }

  say() {
    const words = this.at === null ? "live" : `as of ${clock(this.at)}, not live`;
    setText(this.clock, words);
    this.slider.setAttribute("aria-valuetext", words);
    this.host.querySelector("[data-live-again]").hidden = this.at === null;
  }

  async fetch() {
    const wanted = this.at;
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      const response = await fetch(`/tower/past?at=${new Date(wanted).toISOString()}`, { signal: this.asking.signal });
      if (!response.ok) throw new Error(await response.text());
      const frame = decode(await response.arrayBuffer());
      if (this.at === wanted && frame.kind === SNAPSHOT) this.shown(frame);
    } catch (error) {
      if (error.name !== "AbortError" && this.at === wanted) this.failed(error.message);
    }
  }
}

function floor(ms) {
  return Math.floor(ms / MINUTE_MS) * MINUTE_MS;
}

/** "02:14", with the day where it is another one; in the reader's own time zone. */
export function clock(ms) {
  const moment = new Date(ms);
  const time = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return moment.toDateString() === new Date().toDateString() ? time : `yesterday ${time}`;
}
