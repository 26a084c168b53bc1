/* Pan and zoom for a graph the server drew: drag, Ctrl+wheel, buttons, + - 0 and the arrow keys. */
const STEP = 1.25;
const SMALLEST = 0.15;
const LARGEST = 3;
const DRAG_PIXELS = 4; // of movement before a press is a drag and not a click

class LineageGraph extends HTMLElement {
  connectedCallback() {
    this.scroller = this.querySelector(".lineage-scroll");
    this.svg = this.querySelector(".lineage-svg");
    if (!this.svg || this.classList.contains("is-live")) return;
    this.full = { width: this.svg.viewBox.baseVal.width, height: this.svg.viewBox.baseVal.height };
    this.scale = 1;
    this.classList.add("is-live");
    this.append(this.buttons());
    this.scroller.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("pointerdown", (event) => this.press(event));
    if (this.full.width > this.scroller.clientWidth) this.fit({ isGentle: true });
    this.showStart();
  }

  buttons() {
    const box = document.createElement("div");
    box.className = "lineage-zoom";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Zoom");
    const make = (word, label, act) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word;
      button.setAttribute("aria-label", label);
      button.title = label;
      button.addEventListener("click", act);
      box.append(button);
    };
    make("−", "Smaller", () => this.zoom(1 / STEP));
    make("+", "Larger", () => this.zoom(STEP));
    make("⤢", "Show all of it", () => this.fit({}));
    return box;
  }

  zoom(factor, at = null) {
    const before = this.scale;
    this.scale = Math.min(LARGEST, Math.max(SMALLEST, before * factor));
    const area = this.scroller.getBoundingClientRect();
    const x = at ? at.clientX - area.left : area.width / 2;
    const y = at ? at.clientY - area.top : area.height / 2;
    const ratio = this.scale / before;
    const left = (this.scroller.scrollLeft + x) * ratio - x;
    const top = (this.scroller.scrollTop + y) * ratio - y;
    this.svg.setAttribute("width", Math.round(this.full.width * this.scale));
    this.svg.setAttribute("height", Math.round(this.full.height * this.scale));
    this.scroller.scrollTo(left, top);
  }

  /** All of it, or, gently, no smaller than one can read. */
  fit({ isGentle = false }) {
    const room = Math.min(
      this.scroller.clientWidth / this.full.width,
      isGentle ? Infinity : this.scroller.clientHeight / this.full.height,
    );
    this.zoom(Math.min(1, Math.max(room, isGentle ? 0.7 : SMALLEST)) / this.scale);
  }

  showStart() {
    const start = this.svg.querySelector(".is-start");
    if (!start) return;
    const area = this.scroller.getBoundingClientRect();
    const node = start.getBoundingClientRect();
    this.scroller.scrollBy(
      node.left + node.width / 2 - area.left - area.width / 2,
      node.top + node.height / 2 - area.top - area.height / 2,
    );
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls as everywhere
    event.preventDefault();
    this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, event);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = { "+": () => this.zoom(STEP), "=": () => this.zoom(STEP), "-": () => this.zoom(1 / STEP), 0: () => this.fit({}) };
    const act = acts[event.key]; // the arrow keys scroll, as in every scrolling region
    if (!act) return;
    event.preventDefault();
    act();
  }

  press(event) {
    if (event.button !== 0 || event.pointerType === "touch") return; // a finger scrolls by itself
    const from = { x: event.clientX, y: event.clientY, left: this.scroller.scrollLeft, top: this.scroller.scrollTop };
    let isDrag = false;
    const move = (now) => {
      const dx = now.clientX - from.x;
      const dy = now.clientY - from.y;
      if (!isDrag && Math.hypot(dx, dy) < DRAG_PIXELS) return;
      isDrag = true;
      this.classList.add("is-dragging");
      this.scroller.scrollTo(from.left - dx, from.top - dy);
    };
    const end = () => {
      removeEventListener("pointermove", move);
      this.classList.remove("is-dragging");
      if (!isDrag) return;
      const swallow = (click) => click.preventDefault();
      addEventListener("click", swallow, { capture: true, once: true });
      // A drag that ends outside makes no click: the next one must count again.
      setTimeout(() => removeEventListener("click", swallow, true));
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end, { once: true });
    this.scroller.addEventListener("dragstart", (drag) => drag.preventDefault(), { once: true });
  }
}

customElements.define("lineage-graph", LineageGraph);
