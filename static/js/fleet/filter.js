/* The filter's grammar, as k9s has it: regex, !inverse, -l key=value, -f fuzzy. */

const KEYS = ["agent", "goal", "namespace", "node", "role", "state", "task"];

/** `{test(words), error}` of a text; an unreadable one matches everything and says why. */
export function parseFilter(text) {
  const wanted = text.trim();
  if (!wanted) return { test: () => true, error: "", isEmpty: true };
  try {
    return { test: matcher(wanted), error: "", isEmpty: false };
  } catch (error) {
    return { test: () => true, error: error.message, isEmpty: false };
  }
}

function matcher(wanted) {
  if (wanted.startsWith("!")) {
    const inner = matcher(wanted.slice(1).trim() || "^$");
    return (words) => !inner(words);
  }
  if (wanted.startsWith("-l ")) return labels(wanted.slice(3));
  if (wanted.startsWith("-f ")) {
    const letters = wanted.slice(3).trim().toLowerCase();
    return (words) => isFuzzy(letters, Object.values(words).join(" ").toLowerCase());
  }
  let pattern;
  try {
    pattern = new RegExp(wanted, "i");
  } catch {
    throw new Error(`Not a regular expression: ${wanted}`);
  }
  return (words) => Object.values(words).some((word) => pattern.test(word));
}

function labels(text) {
  const pairs = text.split(",").map((pair) => pair.trim().split("="));
  for (const pair of pairs) {
    if (pair.length !== 2 || !KEYS.includes(pair[0])) {
      throw new Error(`-l takes key=value with a key of ${KEYS.join(", ")}`);
    }
  }
  return (words) => pairs.every(([key, value]) => words[key] === value);
}

function isFuzzy(letters, text) {
  let at = 0;
  for (const letter of letters) {
    at = text.indexOf(letter, at) + 1;
    if (!at) return false;
  }
  return true;
}

/** What of a run can be filtered by. */
export function wordsOf(store, slot, states) {
  const name = (column) => store.names[store[column][slot]] ?? "";
  const goal = store.goalOf(slot);
  return {
    agent: name("agent"),
    goal: goal ? goal.name : "",
    namespace: name("namespace"),
    node: name("node"),
    role: name("role"),
    state: states[store.state[slot]] ?? "",
    task: name("task"),
  };
}
