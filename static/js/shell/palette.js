/* Ctrl+K: places, actions, and things by name; the list is the server's, bounded by one's rights. */

import { open, whenOpened } from "./dialogs.js";
import { isFuzzy } from "./grammar.js";

const WAIT_MS = 120; // after the last key, before the server is asked
const dialog = document.getElementById("palette");
const box = document.getElementById("palette-text");
const list = document.getElementById("palette-list");
const status = document.getElementById("palette-status");

let found = []; // what the server gave for the text
let shown = [];
let chosen = 0;
let asking = null;
let timer = 0;

/** What the page itself offers: places of the navigation, and the menu's actions. */
function ownEntries() {
  const places = [...document.querySelectorAll(".main-nav a")].map((link) => ({
    kind: "Place",
    label: link.querySelector(".place").textContent,
    detail: "",
    run: () => link.click(),
  }));
  const themes = [...document.querySelectorAll("button[name=theme]")].map((button) => ({
    kind: "Action",
    label: `Theme: ${button.value}`,
    detail: button.ariaPressed === "true" ? "now" : "",
    run: () => button.click(),
  }));
  const more = [
    { kind: "Action", label: "Keyboard help", detail: "?", run: () => open("keys-help") },
    {
      kind: "Action",
      label: "Sign out",
      detail: "",
      run: () => document.querySelector('form[action$="/logout"] button').click(),
    },
  ];
  return [...places, ...themes, ...more];
}

function render() {
  const wanted = box.value.trim().toLowerCase();
  const isAbout = ({ label }) => !wanted || isFuzzy(wanted, label.toLowerCase());
  const offered = found.filter((one) => one.kind !== "Action" || isAbout(one));
  const own = ownEntries().filter(isAbout);
  const isStart = ({ label }) => wanted && label.toLowerCase().startsWith(wanted);
  const all = [...own, ...offered];
  shown = [...all.filter(isStart), ...all.filter((one) => !isStart(one))];
  chosen = 0;
  list.replaceChildren(...shown.map(option));
  mark();
}

function option(entry, index) {
  const item = document.createElement("li");
  item.id = `palette-${index}`;
  item.setAttribute("role", "option");
  const kind = document.createElement("span");
  kind.className = "palette-kind";
  kind.textContent = entry.kind;
  const label = document.createElement("span");
  label.className = "palette-label";
  label.textContent = entry.label;
  const detail = document.createElement("span");
  detail.className = "quiet";
  detail.textContent = entry.detail;
  item.append(label, detail, kind);
  item.addEventListener("click", () => go(entry));
  item.addEventListener("pointermove", () => {
    if (chosen !== index) {
      chosen = index;
      mark();
    }
  });
  return item;
}

function mark() {
  [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
  const item = list.children[chosen];
  if (item) {
    box.setAttribute("aria-activedescendant", item.id);
    item.scrollIntoView({ block: "nearest" });
  } else box.removeAttribute("aria-activedescendant");
  box.setAttribute("aria-expanded", String(Boolean(item)));
}

function go(entry) {
  dialog.close();
  if (entry.run) entry.run();
  else location.assign(entry.url);
}

async function ask() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const text = box.value.trim();
  try {
    const url = `${box.dataset.url}?${new URLSearchParams({ q: text })}`;
    const answer = await fetch(url, { signal: mine.signal, headers: { Accept: "application/json" } });
    if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
    found = (await answer.json()).entries;
    render();
    say(shown.length ? `${shown.length} found` : "Nothing of that name that you may see.");
  } catch (error) {
    if (error.name === "AbortError") return;
    found = [];
    render();
    say("The server does not answer: only places and actions are offered.");
  }
}

function say(text) {
  status.textContent = text;
}

box.addEventListener("input", () => {
  render();
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT_MS);
});

box.addEventListener("keydown", (event) => {
  const last = shown.length - 1;
  const steps = {
    ArrowDown: chosen >= last ? 0 : chosen + 1,
    ArrowUp: chosen <= 0 ? last : chosen - 1,
    PageDown: Math.min(chosen + 8, last),
    PageUp: Math.max(chosen - 8, 0),
  };
  if (event.key in steps) {
    event.preventDefault();
    chosen = Math.max(steps[event.key], 0);
    mark();
  } else if (event.key === "Enter" && !event.isComposing) {
    event.preventDefault();
    if (shown[chosen]) go(shown[chosen]);
  }
});

whenOpened("palette", () => {
  box.value = "";
  found = [];
  say("");
  render();
  ask();
});
