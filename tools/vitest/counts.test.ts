// The counts that end a test run, and the setup file, in a run of vitest over made-up tests.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { root } from "../run.mjs";
import { summary } from "./counts.mjs";

let folder: string;

beforeEach(() => {
  folder = realpathSync(mkdtempSync(path.join(tmpdir(), "sisa-counts-")));
  symlinkSync(path.join(root, "node_modules"), path.join(folder, "node_modules"), "junction");
  const setup = JSON.stringify(path.join(root, "tools/vitest/fail-on-console.ts"));
  writeFileSync(path.join(folder, "vitest.config.mjs"), `export default { test: { setupFiles: [${setup}] } };`);
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Runs vitest on the given files; with the counts it returns the failures that vitest printed. */
function run(files: Record<string, string>) {
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(path.join(folder, name), `import { afterAll, describe, test, vi } from "vitest";\n${text}`);
  }
  const countsFile = path.join(folder, "counts.json");
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      path.join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--reporter=default",
      `--reporter=${path.join(root, "tools/vitest/counts.mjs")}`,
    ],
    { cwd: folder, encoding: "utf8", env: { ...process.env, SISA_TEST_COUNTS: countsFile, NO_COLOR: "1" } },
  );
  return { status, stderr, counts: JSON.parse(readFileSync(countsFile, "utf8")) };
}

test("counts tests, and everything that fails outside of them", () => {
  const { status, counts } = run({
    "tests.test.ts": `
      test("passes", () => {});
      test("passes too", () => {});
      test.skip("is not run", () => {});
      test("fails", () => { throw new Error("expected"); });
      describe("suite", () => {
        test("passes in a suite", () => {});
        afterAll(() => { throw new Error("of a hook"); });
      });`,
    "import.test.ts": `import "./missing.ts"; test("never runs", () => {});`,
    "unhandled.test.ts": `test("leaves a rejection behind", () => { void Promise.reject(new Error("unhandled")); });`,
  });
  expect(counts).toEqual({ passed: 4, failed: 4 });
  expect(status).toBe(1);
});

test("a test that writes to the console fails and says what it wrote", () => {
  const { status, stderr, counts } = run({
    "console.test.ts": `
      test("writes", () => { console.warn("loss is %d", 3, { step: 1 }); });
      test("does not", () => {});
      test("looks at what is written", () => { vi.spyOn(console, "warn").mockImplementation(() => {}); console.warn("x"); });`,
  });
  expect(counts).toEqual({ passed: 2, failed: 1 });
  expect(stderr).toContain("console.warn: loss is 3 { step: 1 }");
  expect(status).toBe(1);
});

test("the summary is one plain line", () => {
  expect(summary({ passed: 12, failed: 0 })).toBe("12 passed, 0 failed");
});
