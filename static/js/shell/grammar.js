/* The filter's grammar, as k9s has it: regex, !inverse, -l key=value, -f fuzzy. */

/** `{test(words), error}` of a text over an object of words; what cannot be read keeps everything. */
export function parseFilter(text, keys) {
  const wanted = text.trim();
  if (!wanted) return { test: () => true, error: "", isEmpty: true };
  try {
    return { test: matcher(wanted, keys), error: "", isEmpty: false };
  } catch (error) {
    return { test: () => true, error: error.message, isEmpty: false };
  }
}

function matcher(wanted, keys) {
  if (wanted.startsWith("!")) {
    const rest = wanted.slice(1).trim();
    if (!rest) return () => true;
    const inner = matcher(rest, keys);
    return (words) => !inner(words);
  }
  if (/^-l(\s|$)/.test(wanted)) return labels(wanted.slice(2), keys);
  if (/^-f(\s|$)/.test(wanted)) {
    const letters = wanted.slice(2).replace(/\s/g, "").toLowerCase();
    return (words) => Object.values(words).some((word) => isFuzzy(letters, word.toLowerCase()));
  }
  let pattern;
  try {
    pattern = new RegExp(wanted, "i");
  } catch {
    throw new Error(`Not a regular expression: ${wanted}`);
  }
  return (words) => Object.values(words).some((word) => pattern.test(word));
}

function labels(text, keys) {
  const pairs = text.split(",").map((pair) => pair.split("=").map((side) => side.trim().toLowerCase()));
  for (const pair of pairs) {
    if (pair.length !== 2 || !keys.includes(pair[0])) {
      throw new Error(`-l takes key=value with a key of ${keys.join(", ")}`);
    }
  }
  return (words) =>
    pairs.every(([key, value]) => {
      const word = (words[key] ?? "").toLowerCase();
      return word === value || word.split(/\s+/).includes(value);
    });
}

/** Whether the letters come in this order. */
export function isFuzzy(letters, text) {
  let at = 0;
  for (const letter of letters) {
    at = text.indexOf(letter, at) + 1;
    if (!at) return false;
  }
  return true;
}
