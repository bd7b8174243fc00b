import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { allCases } from "./cases/index.ts";
import { featureTable } from "./features.ts";
import { operations } from "./operations.ts";
import type { Row } from "./result.ts";

test("the table counts what was passed, refused and failed, and lists every operation", () => {
  const row = (name: string, status: Row["status"], mode: Row["mode"]): Row => ({
    op: "matmul",
    case: name,
    mode,
    status,
    ...(status === "unsupported" && {
      error: 'UnsupportedOpError: toy: cannot run "input": it runs float32 only, got x',
    }),
  });
  const rows = [row("a", "passed", "forward"), row("b", "unsupported", "forward"), row("a", "failed", "grad")];
  const lines = featureTable([{ backend: "toy", rows }]).split("\n");
  expect(lines).toContain("- toy refuses 1 of 3 cases: it runs float32 only.");
  expect(lines).toContain("| `matmul` | primitive | rule | 1 of 2 | 0 of 1 (1 failed) |");
  expect(lines).toContain("| `floor` | primitive | none: it is constant almost everywhere | - | - |");
  expect(lines.filter((line) => line.startsWith("| `"))).toHaveLength(operations.size);
});

test("docs/features.md was written from the operations and cases that there are", () => {
  const page = readFileSync(new URL("../../../docs/features.md", import.meta.url), "utf8");
  const cells = page
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split(" | ").map((cell) => cell.replace(/^\| |`| \|$/g, "")));
  const written = Object.fromEntries(cells.map(([op, , , reference]) => [op, Number(reference?.split(" of ").at(-1))]));
  const expected = Object.fromEntries(
    [...operations.keys()].map((name) => [
      name,
      allCases.find(({ op }) => op === name)?.cases.filter(({ perf }) => !perf).length,
    ]),
  );
  expect(written, "run the command that the page begins with").toEqual(expected);
});
