/* The card of an approval: what is outdated says so and cannot be pressed; the answer in words. */

const CONNECT_MS = 5000; // a feed that has not answered by then is as good as stale
const LOOK_MS = 500;
const MINUTE_MS = 60_000;
const startedAt = Date.now();

/** Why the card can't be answered as it is shown, "" when it can. */
function whyOutdated(form) {
  const standing = document.getElementById("standing");
  if (standing?.dataset.state === "closed") return standing.querySelector(".standing-words");
  if (Date.parse(form.dataset.expires) <= Date.now()) return "This approval has expired: it is denied.";
  const feed = document.body.dataset.feed ?? "connecting";
  if (feed === "stale" || (feed === "connecting" && Date.now() - startedAt > CONNECT_MS)) {
    return "Nothing was heard from the server for 5 s: what you see may be outdated. You can answer once it is live again.";
  }
  return "";
}

function judge() {
  const form = document.querySelector("[data-answer]");
  if (!form) return;
  const fields = form.querySelector("[data-answer-fields]");
  const notice = form.parentElement.querySelector("[data-outdated]");
  const why = whyOutdated(form);
  const text = typeof why === "string" ? why : why.textContent.trim();
  if (notice.dataset.said !== text) {
    notice.dataset.said = text;
    if (typeof why === "string") notice.textContent = why ? `▲ ${why}` : "";
    else notice.replaceChildren("▲ ", ...why.cloneNode(true).childNodes);
    notice.hidden = !text;
  }
  if (text && !fields.disabled) {
    fields.disabled = true;
    fields.dataset.outdated = "";
  } else if (!text && fields.dataset.outdated !== undefined) {
    fields.disabled = false;
    delete fields.dataset.outdated;
  }
  fields.querySelector(".until-quick")?.removeAttribute("hidden");
  say(form);
}

function counted(count, noun) {
  return `${count} ${noun}${Number(count) === 1 ? "" : "s"}`;
}

/** What Approve will do, in words, when it is not simply what was asked. */
function say(form) {
  const words = form.querySelector(".answer-words");
  if (!words) return;
  const { asked, unit } = words.dataset;
  const value = (name) => form.elements.namedItem(name)?.value.trim() ?? "";
  const parts = [];
  if (value("until")) parts.push(`until ${value("until").replace("T", " ")} UTC`);
  if (value("gpus")) parts.push(`at most ${counted(value("gpus"), "GPU")} for each task`);
  if (value("parallel")) parts.push(`at most ${counted(value("parallel"), "task")} at once`);
  if (form.elements.namedItem("last_iteration")?.checked) parts.push("no further iteration");
  if (value("model")) parts.push(`no bigger model than ${value("model")}`);
  const isLess = value("grant") && value("grant") !== asked;
  const text = isLess || parts.length ? `Approve grants ${[`${value("grant") || asked} of ${asked} ${unit}`, ...parts].join(", ")}.` : "";
  if (words.textContent !== text) words.textContent = text;
  words.hidden = !text;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-until-hours]");
  if (!button) return;
  const end = new Date(Math.ceil(Date.now() / MINUTE_MS) * MINUTE_MS + Number(button.dataset.untilHours) * 60 * MINUTE_MS);
  document.getElementById("id_until").value = end.toISOString().slice(0, 16);
  judge();
});
document.addEventListener("input", judge);
setInterval(judge, LOOK_MS);
judge();
