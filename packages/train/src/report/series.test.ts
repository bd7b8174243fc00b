import { describe, expect, it } from "vitest";
import type { MetricsRecord } from "../metrics/metrics.ts";
import { countText, points, shortNumber, smoothed, thinned, ticks, tickTexts } from "./series.ts";

const line = (length: number) => Array.from({ length }, (_, x) => ({ x, y: 2 * x }));

describe("points", () => {
  it("takes one kind of record by the wanted axis and leaves out what is not finite", () => {
    const common = { learningRate: 0, gradNorm: 0, tokensPerSecond: 0, skipped: 0 };
    const records: MetricsRecord[] = [
      { type: "step", step: 1, tokens: 10, elapsedSeconds: 0.5, loss: 3, ...common },
      { type: "step", step: 2, tokens: 20, elapsedSeconds: 1, loss: Number.NaN, ...common },
      { type: "evaluation", step: 2, tokens: 20, elapsedSeconds: 1, heldOutLoss: 2 },
      { type: "step", step: 3, tokens: 30, elapsedSeconds: 1.5, loss: 1, ...common },
    ];
    expect(points(records, "step", "tokens", (record) => record.loss)).toEqual([
      { x: 10, y: 3 },
      { x: 30, y: 1 },
    ]);
    expect(points(records, "evaluation", "time", (record) => record.heldOutLoss)).toEqual([{ x: 1, y: 2 }]);
  });
});

describe("smoothed", () => {
  it("does not lag behind a slope, and evens out a zigzag", () => {
    const slope = smoothed(line(50), 10);
    for (const { x, y } of slope.slice(5, -5)) expect(y).toBeCloseTo(2 * x, 12);
    const zigzag = Array.from({ length: 60 }, (_, x) => ({ x, y: x % 2 }));
    for (const { y } of smoothed(zigzag, 20)) expect(Math.abs(y - 0.5)).toBeLessThan(0.06);
    expect(smoothed(line(50), 1)).toEqual(line(50));
  });
});

describe("tickTexts", () => {
  it("writes the ticks of one axis alike", () => {
    expect(tickTexts([1.5, 2, 2.5])).toEqual(["1.5", "2.0", "2.5"]);
    expect(tickTexts([0, 0.0005, 0.001])).toEqual(["0", "5e−4", "1e−3"]);
    expect(tickTexts([0, 2000, 4000])).toEqual(["0", "2,000", "4,000"]);
  });
});

describe("thinned", () => {
  it("keeps ends and means, and leaves short series alone", () => {
    const thin = thinned(line(1001), 101);
    expect(thin).toHaveLength(101);
    expect(thin[0]).toEqual({ x: 0, y: 0 });
    expect(thin.at(-1)).toEqual({ x: 1000, y: 2000 });
    for (const { x, y } of thin) expect(y).toBeCloseTo(2 * x, 9);
    expect(thinned(line(5), 10)).toEqual(line(5));
    expect(thinned([], 10)).toEqual([]);
  });
});

describe("ticks", () => {
  it.each([
    [0, 10, 5, [0, 2, 4, 6, 8, 10]],
    [1.13, 1.62, 5, [1.2, 1.3, 1.4, 1.5, 1.6]],
    [0, 499, 5, [0, 100, 200, 300, 400]],
    [0, 0.003, 3, [0, 0.001, 0.002, 0.003]],
    [2, 2, 5, [2]],
  ])("of %d to %d", (low, high, count, expected) => {
    expect(ticks(low, high, count)).toEqual(expected);
  });
});

it("writes numbers for people", () => {
  expect([0, 1234567.8, 12.3456, 0.001234, 0.0000123, -2.5, Number.NaN].map(shortNumber)).toEqual([
    "0",
    "1,234,568",
    "12.3",
    "0.00123",
    "1.2e−5",
    "−2.5",
    "–",
  ]);
  expect([0, 950, 12_500, 3e6, 2.5e9].map(countText)).toEqual(["0", "950", "12.5K", "3M", "2.5G"]);
});
