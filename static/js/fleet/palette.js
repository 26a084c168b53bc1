/* The design tokens as numbers: colours of states for WebGL and canvas, in the theme of the page. */

import { STATE_TONES } from "./store.js";

/** `{states: [[r, g, b], ...], css: {tone: "rgb(...)"}, fills, ink, accent}`; components 0 to 1. */
export function readPalette(host) {
  const probe = document.createElement("span");
  probe.className = "palette-probe";
  host.append(probe);
  const read = (tone) => {
    probe.dataset.tone = tone;
    return getComputedStyle(probe).color;
  };
  const css = {};
  for (const tone of ["idle", "active", "warning", "warning-fill", "good", "danger", "ink", "quiet", "line", "surface", "wash"]) {
    css[tone] = read(tone);
  }
  probe.remove();
  const fills = { ...css, warning: css["warning-fill"] }; // shapes may be brighter than words
  return { css, fills, states: STATE_TONES.map((tone) => numbers(fills[tone])), ink: numbers(css.ink), accent: numbers(css.active) };
}

function numbers(colour) {
  const found = colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  return colour.startsWith("color(") ? found : found.map((part) => part / 255);
}
