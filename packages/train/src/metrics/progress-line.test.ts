import { describe, expect, it } from "vitest";
import type { StepRecord } from "./metrics.ts";
import { clock, grouped, progressLine } from "./progress-line.ts";

function collector(settings: { isTTY?: boolean; columns?: number } = {}) {
  const written: string[] = [];
  return { ...settings, written, write: (text: string) => written.push(text) };
}

function record(step: number, more: Partial<StepRecord> = {}): StepRecord {
  return {
    type: "step",
    step,
    tokens: step * 2000,
    loss: 4,
    learningRate: 1e-3,
    gradNorm: 1,
    tokensPerSecond: 1000,
    elapsedSeconds: step * 2,
    skipped: 0,
    ...more,
  };
}

describe("progressLine on a terminal", () => {
  it("rewrites one line, and ends it when closed", () => {
    const output = collector({ isTTY: true, columns: 100 });
    const line = progressLine(output, { totalSteps: 200, name: "sisa" });
    line.write(record(49));
    line.write(record(50));
    line.close?.();
    expect(output.written).toEqual([
      "\rsisa  step 49/200 (24%)  loss 4.000  1,000 tokens/s  elapsed 1:38  left 5:02\x1b[K",
      "\rsisa  step 50/200 (25%)  loss 4.000  1,000 tokens/s  elapsed 1:40  left 5:00\x1b[K",
      "\n",
    ]);
  });

  it("never fills the last column", () => {
    const output = collector({ isTTY: true, columns: 40 });
    progressLine(output, { totalSteps: 200 }).write(record(1));
    expect(output.written[0]?.replace("\r", "").replace("\x1b[K", "")).toHaveLength(39);
  });

  it("keeps held-out losses on lines of their own", () => {
    const output = collector({ isTTY: true });
    const line = progressLine(output, { totalSteps: 10 });
    line.write(record(1));
    line.write({ type: "evaluation", step: 1, tokens: 2, elapsedSeconds: 3, heldOutLoss: 2.5, bitsPerByte: 1.25 });
    line.close?.();
    expect(output.written.slice(1)).toEqual(["\n", "step 1: held-out loss 2.5000 (1.250 bits/byte)\n"]);
  });
});

describe("progressLine elsewhere", () => {
  it("writes plain lines, at most one in an interval, and always the last step", () => {
    const output = collector();
    const line = progressLine(output, { totalSteps: 12, intervalSeconds: 10 });
    for (let step = 1; step <= 12; step++) line.write(record(step));
    line.close?.();
    expect(output.written.map((text) => /step (\d+)/.exec(text)?.[1])).toEqual(["1", "6", "11", "12"]);
    for (const control of ["\r", "\x1b"]) expect(output.written.join("")).not.toContain(control);
  });

  it("shows where a run was cut off", () => {
    const output = collector();
    const line = progressLine(output, { totalSteps: 100 });
    line.write(record(1));
    line.write(record(2));
    line.close?.();
    expect(output.written.at(-1)).toContain("step 2/100 (2%)");
  });

  it("smooths the loss without a bias at the start, past a step that is not finite", () => {
    const output = collector();
    const line = progressLine(output, { totalSteps: 3, intervalSeconds: 0 });
    line.write(record(1, { loss: 5 }));
    line.write(record(2, { loss: Number.NaN, skipped: 1 }));
    line.write(record(3, { loss: 3, skipped: 1 }));
    expect(output.written[0]).toContain("loss 5.000");
    expect(output.written[1]).toContain("loss 5.000");
    expect(output.written[1]).toContain("skipped 1");
    expect(output.written[2]).toContain("loss 3.974");
  });
});

it("writes times and numbers for people", () => {
  expect([7.4, 754, 3723, Number.POSITIVE_INFINITY].map(clock)).toEqual(["0:07", "12:34", "1:02:03", "-"]);
  expect([999, 1000, 1234567.8, Number.NaN].map(grouped)).toEqual(["999", "1,000", "1,234,568", "-"]);
});
