/* Draws agents where there is no WebGL2: the same shapes on a 2D canvas, without marks when small. */

import { FOREIGN, STATE_TONES } from "./store.js";

const ARM = 0.45; // half as wide as a cross is thick
const CROSS = [
  [-ARM, -1.1], [ARM, -1.1], [ARM, -ARM], [1.1, -ARM], [1.1, ARM], [ARM, ARM],
  [ARM, 1.1], [-ARM, 1.1], [-ARM, ARM], [-1.1, ARM], [-1.1, -ARM], [-ARM, -ARM],
];

export class CanvasRenderer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.places = new Float32Array(0);
    this.looks = new Uint8Array(0);
  }

  setPlaces(places) {
    this.places = places;
  }

  setLooks(looks) {
    this.looks = looks;
  }

  draw(camera, palette) {
    const { context, canvas, places, looks } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const unit = camera.scale * camera.ratio;
    const radius = Math.max(unit * 0.34, 0.75);
    const isSmall = unit < 7;
    context.lineWidth = Math.max(unit * 0.1, 1);
    for (let i = 0; i < places.length / 2; i += 1) {
      const x = (places[2 * i] - camera.x) * unit;
      const y = (places[2 * i + 1] - camera.y) * unit;
      if (x < -unit || y < -unit || x > canvas.width + unit || y > canvas.height + unit) continue;
      const [state, kind, flags] = looks.subarray(4 * i, 4 * i + 3);
      context.fillStyle = context.strokeStyle = palette.fills[STATE_TONES[state]] ?? palette.css.quiet;
      const isHollow = state === 0 || state === 5;
      if (isSmall && !isHollow) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      else {
        trace(context, kind, x, y, radius);
        if (isHollow) context.stroke();
        else context.fill();
      }
      if (flags & 2) {
        context.strokeStyle = palette.css.active;
        context.strokeRect(x - unit * 0.45, y - unit * 0.45, unit * 0.9, unit * 0.9);
      }
      if (flags & 1) {
        context.strokeStyle = palette.css.ink;
        context.strokeRect(x - unit / 2, y - unit / 2, unit, unit);
      }
    }
  }
}

function trace(context, kind, x, y, radius) {
  context.beginPath();
  if (kind === 1) context.rect(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8);
  else if (kind === 2) polygon(context, [[x, y - radius * 1.25], [x + radius * 1.25, y], [x, y + radius * 1.25], [x - radius * 1.25, y]]);
  else if (kind === 3) polygon(context, [[x, y - radius * 1.3], [x + radius * 1.2, y + radius], [x - radius * 1.2, y + radius]]);
  else if (kind === FOREIGN) polygon(context, CROSS.map(([across, down]) => [x + across * radius, y + down * radius]));
  else context.arc(x, y, radius, 0, 2 * Math.PI);
}

function polygon(context, points) {
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}
