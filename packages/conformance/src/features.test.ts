import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { caseCount, featureTable } from "./features.ts";
import { operations } from "./operations.ts";
import { readRecordings, recordingOf, writeRecording } from "./recording.ts";
import type { Row } from "./result.ts";

const folder = mkdtempSync(path.join(tmpdir(), "sisa-recordings-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The cells of an operation's row, without its kind and gradient rule. */
function cellsOf(table: string, op: string): string[] | undefined {
  const line = table.split("\n").find((line) => line.startsWith(`| \`${op}\` |`));
  return line?.slice(2, -2).split(" | ").slice(3);
}

test("the table counts what was passed, refused and failed, and lists every operation and backend", () => {
  const rows = Array.from({ length: caseCount("matmul") }, (_, index): Row => {
    const row = { op: "matmul", case: `${index}`, mode: "forward" } as const;
    if (index > 0) return { ...row, status: "passed" };
    const error = 'UnsupportedOpError: webgpu: cannot run "input": it runs float32 only, got x';
    return { ...row, status: "unsupported", error };
  });
  rows.push({ op: "matmul", case: "1", mode: "grad", status: "failed" });
  rows.push({ op: "floor", case: "of a run before cases were added", mode: "forward", status: "passed" });
  writeRecording(folder, recordingOf("webgpu", "A GPU", "2026-01-02", rows));
  const table = featureTable(readRecordings(folder));
  const count = caseCount("matmul");
  expect(table).toContain(
    `\n- webgpu, on A GPU, 2026-01-02: refuses 1 of ${count + 2} cases: it runs float32 only.\n- cuda: not recorded`,
  );
  const unknown = "not recorded";
  const webgpu = `${count - 1} of ${count}, 0 of 1 (1 failed)`;
  expect(cellsOf(table, "matmul")).toEqual([unknown, unknown, webgpu, unknown]);
  expect(cellsOf(table, "floor")).toEqual([unknown, unknown, "outdated", unknown]);
  expect(table.split("\n").filter((line) => line.startsWith("| `"))).toHaveLength(operations.size);
});

test("docs/features.md was written from the recordings, the operations and the cases that there are", () => {
  const table = featureTable(readRecordings(path.join(import.meta.dirname, "../recorded")));
  const page = readFileSync(new URL("../../../docs/features.md", import.meta.url), "utf8");
  const advice = "run the command that the page begins with";
  expect(page === table, advice).toBe(true);
  // The backends that run everywhere are never behind.
  for (const name of operations.keys()) expect(cellsOf(table, name)?.slice(0, 2), advice).not.toContain("outdated");
});
