import { describe, expect, it } from "vitest";
import { readFixture } from "../../test/read-fixture.ts";
import { learningRateAt } from "./schedule.ts";

describe("learningRateAt", () => {
  it.each(["sisa", "transformer"])("gives the rates of torch LambdaLR in %s-train-10-steps", (name) => {
    const fixture = readFixture(`${name}-train-10-steps`);
    const training = JSON.parse(fixture.metadata.training ?? "");
    const schedule = {
      learningRate: training.learning_rate,
      warmupSteps: training.warmup_steps,
      totalSteps: training.total_steps,
      finalFraction: 0,
    };
    const expected = fixture.floats("learning_rates");
    expect(expected).toHaveLength(10);
    expected.forEach((rate, step) => {
      expect(Math.fround(learningRateAt(step, schedule))).toBe(rate);
    });
  });

  const schedule = { learningRate: 2, warmupSteps: 4, totalSteps: 12, finalFraction: 0.25 };

  it("rises linearly from 0, peaks at the end of the warm-up and falls to the final fraction", () => {
    expect([0, 1, 2, 3, 4].map((step) => learningRateAt(step, schedule))).toEqual([0, 0.5, 1, 1.5, 2]);
    expect(learningRateAt(8, schedule)).toBeCloseTo(1.25, 12);
    expect(learningRateAt(12, schedule)).toBe(0.5);
    expect(learningRateAt(1000, schedule)).toBe(0.5);
  });

  it("starts at the peak without a warm-up, and stays there where all steps are warm-up", () => {
    expect(learningRateAt(0, { ...schedule, warmupSteps: 0 })).toBe(2);
    expect(learningRateAt(12, { ...schedule, warmupSteps: 12 })).toBe(2);
  });
});
