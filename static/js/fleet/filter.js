/* What of a run can be filtered by, in the grammar of every other table (shell/grammar.js). */

export const KEYS = ["agent", "goal", "namespace", "node", "role", "state", "task"];

/** The words of one run, by key. */
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
