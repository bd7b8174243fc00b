// Builds the documentation site into docs/dist: first the reference from the code's comments, then the pages.
// `node docs/build.mjs --serve` shows it while it is written.
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const folder = path.dirname(fileURLToPath(import.meta.url));
const program = (/** @type {string} */ file) => path.join(folder, "node_modules", file);

function run(/** @type {readonly string[]} */ words) {
  const { status } = spawnSync(process.execPath, words, { cwd: folder, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

rmSync(path.join(folder, "api"), { recursive: true, force: true });
run([program("typedoc/bin/typedoc"), "--options", "typedoc.json"]);
const serve = process.argv.includes("--serve");
run([program("vitepress/bin/vitepress.js"), serve ? "dev" : "build", "."]);
