import { describe, expect, it } from "vitest";
import { secondsPerRound } from "./step-fit.ts";

/** Trainings on a clock of their own: one step of each takes so many milliseconds, more while the machine is busy. */
function machine(milliseconds: readonly number[], slowdown: (nowMs: number) => number = () => 1) {
  let nowMs = 0;
  const taken: number[] = [];
  return {
    taken,
    now: () => nowMs,
    takeSteps: milliseconds.map((step, index) => async () => {
      taken.push(index);
      nowMs += step * slowdown(nowMs);
    }),
  };
}

const timing = { seconds: 2, fewestRounds: 5, mostRounds: 1000 };

describe("secondsPerRound", () => {
  it("adds one step of each, taken in turns for the time it has", async () => {
    const { takeSteps, now, taken } = machine([30, 20]);
    expect(await secondsPerRound(takeSteps, { ...timing, now })).toBeCloseTo(0.05, 9);
    expect(taken).toHaveLength(2 * 40);
    expect(taken.slice(0, 4)).toEqual([0, 1, 0, 1]);
  });

  it.each([
    ["at the start", (nowMs: number) => (nowMs < 1200 ? 3 : 1)],
    ["at the end", (nowMs: number) => (nowMs >= 800 ? 3 : 1)],
    ["again and again", (nowMs: number) => (nowMs % 400 < 200 ? 4 : 1)],
  ])("is not moved by a machine that is busy %s", async (_, slowdown) => {
    const { takeSteps, now } = machine([30, 20], slowdown);
    expect(await secondsPerRound(takeSteps, { ...timing, now })).toBeCloseTo(0.05, 9);
  });

  it("is not moved by one lucky round", async () => {
    const { takeSteps, now } = machine([50], (nowMs) => (nowMs === 0 ? 0.1 : 1));
    expect(await secondsPerRound(takeSteps, { ...timing, now })).toBeCloseTo(0.05, 9);
  });

  it("takes the fewest rounds where they are longer than the time, and no more than the most", async () => {
    const slow = machine([9000]);
    expect(await secondsPerRound(slow.takeSteps, { ...timing, now: slow.now })).toBeCloseTo(9, 9);
    expect(slow.taken).toHaveLength(5);
    const fast = machine([0.001]);
    await secondsPerRound(fast.takeSteps, { ...timing, now: fast.now });
    expect(fast.taken).toHaveLength(1000);
  });
});
