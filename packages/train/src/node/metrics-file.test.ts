import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { MetricsRecord } from "../metrics/metrics.ts";
import { metricsFile, readMetrics } from "./metrics-file.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sisa-metrics-"));
  path = join(folder, "run/metrics.jsonl");
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const record = (step: number): MetricsRecord => ({ type: "sample", step, prompt: "é", text: `text ${step}` });

function run(start: number, steps: readonly number[]): void {
  const sink = metricsFile(path);
  sink.start?.(start);
  for (const step of steps) sink.write(record(step));
  sink.flush?.();
  sink.close?.();
}

it("appends one line a record", () => {
  run(0, [1, 2, 3]);
  expect(readFileSync(path, "utf8").split("\n")).toHaveLength(4);
  expect(readMetrics(path)).toEqual([1, 2, 3].map(record));
});

it("cuts back to the checkpoint when a run resumes, and begins anew at step 0", () => {
  run(0, [1, 2, 3, 4]);
  run(2, [3]);
  expect(readMetrics(path).map(({ step }) => step)).toEqual([1, 2, 3]);
  run(0, [1]);
  expect(readMetrics(path).map(({ step }) => step)).toEqual([1]);
});

it("drops a line that a crash left half-written", () => {
  run(0, [1, 2]);
  appendFileSync(path, '{"type":"step","st');
  expect(readMetrics(path).map(({ step }) => step)).toEqual([1, 2]);
  run(2, [3]);
  expect(readMetrics(path).map(({ step }) => step)).toEqual([1, 2, 3]);
});
