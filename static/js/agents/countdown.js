/** Counts down to the moment an identity document expires: <time data-until datetime="…">. */

const SECOND = 1000;
const SOON_SECONDS = 60;

function words(seconds) {
  if (seconds <= 0) return "expired";
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const rest = `${String(minutes).padStart(2, "0")}:${String(seconds % 60).padStart(2, "0")}`;
  return hours > 0 ? `${hours}:${rest} left` : `${rest} left`;
}

function tick() {
  for (const one of document.querySelectorAll("time[data-until]")) {
    const seconds = Math.ceil((Date.parse(one.dateTime) - Date.now()) / SECOND);
    const text = words(seconds);
    if (one.textContent !== text) one.textContent = text;
    one.classList.toggle("soon", seconds <= SOON_SECONDS);
  }
}

tick();
setInterval(tick, SECOND);
document.addEventListener("htmx:after:swap", tick);
