// Writes LICENSE: the licence of each package that is bundled into codemirror.js, by name.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
const built = Object.entries(lock.packages).filter(
  ([path]) => path.startsWith("node_modules/") && !path.includes("esbuild"),
);
const parts = built.map(([path, { version }]) => {
  const name = path.slice("node_modules/".length);
  const file = readdirSync(path).find((entry) => /^licen[cs]e/i.test(entry));
  return `${name} ${version}\n\n${readFileSync(`${path}/${file}`, "utf8").trim()}\n`;
});
writeFileSync("LICENSE", parts.join(`\n${"-".repeat(80)}\n\n`));
