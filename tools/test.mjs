// Every check of the workspace, one after another: types, lint and format, build, tests. The last line is "N passed, N failed".
// --fast leaves out the build and the *.slow.test.ts files, --check leaves out the tests; the rest goes to vitest.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { build, root, runProgram } from "./run.mjs";
import { summary } from "./vitest/counts.mjs";

const flags = new Set(["--fast", "--check"]);
const given = process.argv.slice(2);
const fast = given.includes("--fast");
const checkOnly = given.includes("--check");
const vitestArguments = given.filter((argument) => !flags.has(argument));

const packageFile = (/** @type {string} */ file) => path.join(root, "node_modules", file);
const tsc = packageFile("typescript/bin/tsc");
const biome = packageFile("@biomejs/biome/bin/biome");

/** @type {readonly { name: string, run: () => number }[]} */
const checks = [
  { name: "types", run: () => node([tsc, "-p", "."]) },
  // No types of Node or of the DOM: core runs in any JavaScript runtime.
  { name: "types of core alone", run: () => node([tsc, "-p", "packages/core/tsconfig.build.json"]) },
  // The only code that runs in pages, with the types of the DOM.
  { name: "types of the playground", run: () => node([tsc, "-p", "apps/playground"]) },
  { name: "lint and format", run: () => node([biome, "check", "--error-on-warnings"]) },
  ...(fast ? [] : [{ name: "build", run: build }]),
];

let passed = 0;
let failed = 0;
for (const check of checks) {
  const startMs = performance.now();
  const ok = check.run() === 0;
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  process.stdout.write(`${ok ? "ok  " : "FAIL"}  ${check.name} (${seconds} s)\n`);
  if (ok) passed++;
  else failed++;
}

if (!checkOnly) {
  const counts = await runTests();
  passed += counts.passed;
  failed += counts.failed;
}
process.stdout.write(`${summary({ passed, failed })}\n`);
process.exitCode = failed === 0 ? 0 : 1;

/** Runs vitest. What it counted comes back through a file; an exit code that the counts do not explain is one more failure. */
async function runTests() {
  const folder = mkdtempSync(path.join(tmpdir(), "sisa-test-"));
  const countsFile = path.join(folder, "counts.json");
  try {
    process.env.SISA_TEST_COUNTS = countsFile;
    const code = await runProgram(
      packageFile("vitest/vitest.mjs"),
      [
        "run",
        "--reporter=default",
        "--reporter=./tools/vitest/counts.mjs",
        ...(fast ? ["--exclude=**/*.slow.test.ts"] : []),
        ...vitestArguments,
      ],
      root,
    );
    const counts = readCounts(countsFile);
    if (code !== 0 && counts.failed === 0) counts.failed = 1;
    return counts;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @returns {{ passed: number, failed: number }} */
function readCounts(/** @type {string} */ file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    // vitest ended before it had results.
    return { passed: 0, failed: 1 };
  }
}

function node(/** @type {readonly string[]} */ nodeArguments) {
  return spawnSync(process.execPath, nodeArguments, { cwd: root, stdio: "inherit" }).status ?? 1;
}
