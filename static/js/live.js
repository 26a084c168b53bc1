/* The live part of pages: hints over a websocket, polling without one, and a badge that is honest. */

const STALE_AFTER_MS = 5000; // nothing heard for this long is stale (the server beats every 2 s)
const POLL_MS = 4000; // below STALE_AFTER_MS, so that a page that polls is never called stale
const DEBOUNCE_MS = 300; // a burst of hints is one refresh
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 15000];
const CLOCK_MS = 5000; // how often relative times move

const WORDS = {
  connecting: ["◌", "connecting"],
  live: ["●", "live"],
  polling: ["◐", "polling every 4 s"],
  stale: ["○", "stale"],
};

class LiveFeed extends HTMLElement {
  connectedCallback() {
    this.heardAt = 0;
    this.attempts = 0;
    this.last = null;
    this.pending = null;
    this.isClosing = false;
    this.isSocketAlive = false;
    this.polledAt = 0;
    this.open();
    this.watch = setInterval(() => this.judge(), 500);
    this.poll = setInterval(() => this.refresh(), POLL_MS);
    document.body.addEventListener("htmx:after:request", (event) => this.answered(event));
    document.body.addEventListener("htmx:before:swap", (event) => this.keepWhatWasKnown(event));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.refresh();
    });
    addEventListener("pagehide", () => {
      this.isClosing = true;
      this.socket?.close();
    });
    addEventListener("pageshow", (event) => {
      if (event.persisted) location.reload();
    });
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}${this.dataset.url}`);
    this.socket.addEventListener("message", (event) => this.hear(JSON.parse(event.data)));
    this.socket.addEventListener("close", () => {
      if (this.isClosing) return;
      const wait = BACKOFF_MS[Math.min(this.attempts, BACKOFF_MS.length - 1)];
      this.attempts += 1;
      this.isSocketAlive = false;
      setTimeout(() => this.open(), wait * (0.75 + Math.random() / 2));
    });
  }

  hear(message) {
    this.heardAt = Date.now();
    this.attempts = 0;
    this.isSocketAlive = true;
    const before = this.last;
    this.last = { epoch: message.epoch, seq: message.seq };
    const isGap = before && (before.epoch !== message.epoch || message.seq !== before.seq + 1);
    if (isGap) this.soon(null);
    else if (message.type === "hint") this.soon(message.goal);
    this.judge();
  }

  /** A refresh that succeeded is as good as a beat; one that failed is not. */
  answered(event) {
    const status = event.detail?.ctx?.response?.status ?? 0;
    if (status >= 200 && status < 300) this.polledAt = Date.now();
  }

  /** A part that could not be read again stays as it was last known, and the page says so. */
  keepWhatWasKnown(event) {
    const { sourceElement: part, response } = event.detail.ctx;
    if (!part?.matches?.("[data-live]")) return;
    const isRefused = response.status >= 400 && response.status !== 422; // 422 is a part that says why
    part.toggleAttribute("data-unread", isRefused);
    if (isRefused) event.preventDefault();
    // Gone, or no longer one's to see: the page itself says so, and what it showed is not kept.
    const isPage = new URL(part.getAttribute("hx-get"), location).pathname === location.pathname;
    if (isPage && [403, 404].includes(response.status)) location.reload();
    this.judge();
  }

  judge() {
    const now = Date.now();
    if (document.querySelector("[data-unread]")) {
      this.show("stale", "stale: the server cannot tell what is new");
    } else if (this.isSocketAlive && now - this.heardAt < STALE_AFTER_MS) this.show("live");
    else if (this.polledAt && now - this.polledAt < STALE_AFTER_MS) this.show("polling");
    else if (this.heardAt || this.polledAt) {
      const silent = Math.round((now - Math.max(this.heardAt, this.polledAt)) / 1000);
      this.show("stale", `stale: nothing heard for ${silent} s`);
    } else this.show("connecting");
  }

  show(state, words) {
    const [shape, word] = WORDS[state];
    if (this.dataset.state !== state) {
      this.dataset.state = state;
      document.body.dataset.feed = state;
      this.querySelector(".shape").textContent = shape;
    }
    const label = this.querySelector(".feed-word");
    const text = words ?? word;
    if (label.textContent !== text) label.textContent = text;
  }

  soon(goal) {
    if (this.pending) {
      if (this.pending.goal !== goal) this.pending.goal = null;
      return;
    }
    this.pending = { goal };
    setTimeout(() => {
      const wanted = this.pending.goal;
      this.pending = null;
      this.refresh(wanted);
    }, DEBOUNCE_MS);
  }

  /** Ask every live part for itself again; `goal` narrows it to the parts about one Goal. */
  refresh(goal = null) {
    if (document.hidden) return;
    for (const part of document.querySelectorAll("[data-live]")) {
      const about = part.dataset.liveGoal;
      if (goal && about && about !== goal) continue;
      if (isBeingUsed(part)) continue;
      htmx.trigger(part, "refresh");
    }
  }
}

/** Nothing is swapped under a person who types, has selected text, or is asked about the part. */
function isBeingUsed(part) {
  if (part.querySelector("details.menu[open]") || document.querySelector("#confirm[open]")) return true;
  const focused = document.activeElement;
  if (part.contains(focused) && focused.matches("input, textarea, select")) return true;
  for (const field of part.querySelectorAll("textarea, input:not([type=hidden])")) {
    if (field.value !== field.defaultValue) return true;
  }
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && part.contains(selection.anchorNode));
}

/** "3 min 5 s ago", as the server writes it. */
function distance(total) {
  if (total < 60) return total < 10 ? `${total.toFixed(1)} s` : `${Math.round(total)} s`;
  const minutes = Math.floor(total / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return `${minutes} min ${Math.floor(total % 60)} s`;
}

function moveClocks() {
  for (const element of document.querySelectorAll("time[data-relative]")) {
    const seconds = (Date.now() - Date.parse(element.dateTime)) / 1000;
    element.textContent = seconds >= 0 ? `${distance(seconds)} ago` : `in ${distance(-seconds)}`;
  }
}

/** An open menu closes at Escape and at a press elsewhere, but not at those of a dialog over it. */
function closeMenus(event) {
  if (document.querySelector("dialog[open]")) return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (event.type === "keydown" && event.key !== "Escape") return;
    if (event.type === "click" && menu.contains(event.target)) continue;
    menu.open = false;
    if (event.type === "keydown") menu.querySelector("summary").focus();
  }
}

/** The address says what the page shows: the live part knows the query that it came from, but for
 * pages such as the Tower that write their address themselves. */
function keepAddress() {
  const shown = document.querySelector("#live[hx-get]:not([data-own-address])")?.getAttribute("hx-get");
  if (!shown || shown === location.pathname + location.search) return;
  if (shown.split("?")[0] !== location.pathname) return;
  history.replaceState(history.state, "", shown + location.hash);
}

document.addEventListener("htmx:after:swap", keepAddress);
customElements.define("live-feed", LiveFeed);
setInterval(moveClocks, CLOCK_MS);
document.addEventListener("click", closeMenus);
document.addEventListener("keydown", closeMenus);
