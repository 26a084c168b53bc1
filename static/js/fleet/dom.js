/* Elements without markup: everything is text, so nothing an agent wrote can become code. */

/** An element with attributes and children; a string is a text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** A state as shape and word, as the server's badge. */
export function badge(tone, shape, word) {
  return element(
    "span",
    { class: `badge tone-${tone}` },
    element("span", { class: "shape", "aria-hidden": "true" }, shape),
    word,
  );
}

export function unknown() {
  return element("span", { class: "unknown" }, "unknown");
}

/** GPU time as people say it. */
export function gpuTime(ms) {
  if (Number.isNaN(ms)) return "unknown"; // of the past, only what had ended is known
  const seconds = ms / 1000;
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(2)} GPU-hours`;
  if (seconds >= 120) return `${(seconds / 60).toFixed(1)} GPU-minutes`;
  return `${seconds.toFixed(1)} GPU-seconds`;
}

/** A span of time in milliseconds, in at most two units. */
export function duration(ms) {
  const seconds = Math.max(Math.floor(ms / 1000), 0);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return `${minutes} min ${seconds % 60} s`;
}

export function goalUrl(goal) {
  return `/goals/${encodeURIComponent(goal.namespace)}/${encodeURIComponent(goal.name)}`;
}
