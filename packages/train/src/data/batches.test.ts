import { DataError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { type BatchPlan, heldOutPlan, requireLength, shuffled, trainingBatch } from "./batches.ts";
import { arraySource } from "./training-data.ts";

const plan: BatchPlan = { seed: 7, sequenceLength: 4, microBatchSize: 3, gradientAccumulation: 2 };
const counting = (length: number) => arraySource(Int32Array.from({ length }, (_, index) => index));

describe("shuffled", () => {
  it.each([1, 2, 3, 4, 5, 63, 64, 65, 1000])("is an order of %i pieces", (length) => {
    const order = Array.from({ length }, (_, index) => shuffled(index, length, 3, 0));
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length }, (_, index) => index));
  });

  it("differs with the seed and with the pass", () => {
    const order = (seed: number, pass: number) =>
      Array.from({ length: 100 }, (_, index) => shuffled(index, 100, seed, pass));
    expect(order(1, 0)).toEqual(order(1, 0));
    expect(order(1, 0)).not.toEqual(order(2, 0));
    expect(order(1, 0)).not.toEqual(order(1, 1));
  });

  it("puts each piece anywhere with about equal chance", () => {
    const counts = new Array<number>(8).fill(0);
    for (let seed = 0; seed < 4000; seed++) {
      const place = shuffled(0, 8, seed, 0);
      counts[place] = (counts[place] ?? 0) + 1;
    }
    // 500 expected, standard deviation 21.
    for (const count of counts) expect(Math.abs(count - 500)).toBeLessThan(105);
  });
});

describe("trainingBatch", () => {
  it("goes through every piece once in each pass, with the next token as target", async () => {
    const source = counting(4 * 12 + 1);
    const seen: number[] = [];
    for (let step = 0; step < 2; step++) {
      for (let micro = 0; micro < 2; micro++) {
        const { ids, targets } = await trainingBatch(source, plan, step, micro);
        expect(targets).toEqual(ids.map((id) => id + 1));
        for (let row = 0; row < 3; row++) seen.push(ids[row * 4] ?? -1);
      }
    }
    expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, piece) => piece * 4));
    expect(seen).not.toEqual([...seen].sort((a, b) => a - b));
  });

  it("depends on nothing but seed, step, micro-batch and row", async () => {
    const source = counting(400);
    await trainingBatch(source, plan, 0, 0);
    const late = await trainingBatch(source, plan, 1000, 1);
    expect(await trainingBatch(counting(400), plan, 1000, 1)).toEqual(late);
    expect(await trainingBatch(source, plan, 1000, 0)).not.toEqual(late);
    expect(await trainingBatch(source, { ...plan, seed: 8 }, 1000, 1)).not.toEqual(late);
  });

  it("gives the same rows however a step is cut into micro-batches", async () => {
    const source = counting(4 * 40 + 1);
    const whole = await trainingBatch(source, { ...plan, microBatchSize: 6, gradientAccumulation: 1 }, 3, 0);
    const first = await trainingBatch(source, plan, 3, 0);
    const second = await trainingBatch(source, plan, 3, 1);
    expect([...first.ids, ...second.ids]).toEqual([...whole.ids]);
  });

  it("refuses data that are shorter than a sequence, which hold no piece", async () => {
    await expect(trainingBatch(counting(4), plan, 0, 0)).rejects.toThrow("expected at least 5 tokens");
    expect(() => shuffled(0, 0, 7, 0)).toThrow(DataError);
    expect(() => shuffled(Number.NaN, Number.NaN, 7, Number.NaN)).toThrow(DataError);
  });

  it("works on data of exactly one sequence", async () => {
    const { ids } = await trainingBatch(counting(5), plan, 5, 1);
    expect([...ids]).toEqual([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
  });
});

describe("requireLength", () => {
  it("needs one token more than a sequence", () => {
    requireLength(counting(5), 4, "training part");
    expect(() => requireLength(counting(4), 4, "training part")).toThrow(DataError);
    expect(() => requireLength(counting(4), 4, "training part")).toThrow(
      "training part: expected at least 5 tokens (sequenceLength + 1), got 4",
    );
  });
});

describe("heldOutPlan", () => {
  const sizes = { sequenceLength: 4, microBatchSize: 2, heldOutBatches: 3 };

  it("spreads distinct pieces over the whole source", () => {
    const { rows, starts } = heldOutPlan(counting(4 * 60 + 1), sizes);
    expect(rows).toBe(2);
    expect(starts).toEqual([
      [0, 40],
      [80, 120],
      [160, 200],
    ]);
  });

  it("uses what there is", () => {
    expect(heldOutPlan(counting(4 * 3 + 2), sizes).starts).toEqual([[0, 4]]);
    expect(heldOutPlan(counting(6), sizes)).toEqual({ rows: 1, sequenceLength: 4, starts: [[0]] });
    expect(heldOutPlan(counting(3), sizes)).toEqual({ rows: 1, sequenceLength: 2, starts: [[0]] });
  });

  it("refuses less than two tokens", () => {
    expect(() => heldOutPlan(counting(1), sizes)).toThrow("held-out part: expected at least 2 tokens, got 1");
  });
});
