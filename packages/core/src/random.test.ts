import { describe, expect, test } from "vitest";
import { philox, RandomStream } from "./random.ts";

type Words = readonly [number, number, number, number];

const hex = (words: readonly number[]) => words.map((word) => word.toString(16).padStart(8, "0")).join(" ");

/** Philox-4x32-10 again, from the paper's definition, with whole numbers of any length. */
function philoxByDefinition(key: readonly [number, number], counter: Words): readonly number[] {
  const word = 2n ** 32n;
  let [k0, k1] = key.map(BigInt) as [bigint, bigint];
  let [x0, x1, x2, x3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * x0;
    const b = 0xcd9e8d57n * x2;
    [x0, x1, x2, x3] = [(b / word) ^ x1 ^ k0, b % word, (a / word) ^ x3 ^ k1, a % word];
    k0 = (k0 + 0x9e3779b9n) % word;
    k1 = (k1 + 0xbb67ae85n) % word;
  }
  return [x0, x1, x2, x3].map(Number);
}

function moments(values: Iterable<number>) {
  const list = [...values];
  const average = (power: number, center: number) =>
    list.reduce((total, value) => total + (value - center) ** power, 0) / list.length;
  const mean = average(1, 0);
  const variance = average(2, mean);
  return { mean, variance, skew: average(3, mean) / variance ** 1.5, kurtosis: average(4, mean) / variance ** 2 };
}

describe("philox", () => {
  // From kat_vectors of the Random123 distribution: counter, key, result.
  test.each<[Words, [number, number], string]>([
    [[0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], "d16cfe09 94fdcceb 5001e420 24126ea1"],
  ])("known answer for counter %s", (counter, key, result) => {
    expect(hex(philox(key, counter))).toBe(result);
    expect(hex(philoxByDefinition(key, counter))).toBe(result);
  });

  test("equals its definition for many counters and keys", () => {
    let state = [1, 2, 3, 4] as Words;
    for (let index = 0; index < 300; index++) {
      const key = [state[3], index] as const;
      expect(philox(key, state)).toEqual(philoxByDefinition(key, state));
      state = philox(key, state);
    }
  });
});

describe("a stream", () => {
  test("has pinned first values", () => {
    const stream = new RandomStream(42, "weights");
    expect([0, 1, 2, 3, 4].map((index) => stream.uniform(index))).toMatchInlineSnapshot(`
      [
        0.6182753236498684,
        0.19464497780427337,
        0.3062097125221044,
        0.059168924344703555,
        0.3082349104806781,
      ]
    `);
    expect([...stream.normal(6)]).toMatchInlineSnapshot(`
      [
        0.33423519134521484,
        0.9219163060188293,
        1.4333953857421875,
        0.5588809251785278,
        -1.222075343132019,
        -0.9275332689285278,
      ]
    `);
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((index) => stream.below(10, index))).toMatchInlineSnapshot(`
      [
        6,
        1,
        3,
        0,
        3,
        6,
        5,
        9,
      ]
    `);
  });

  test("is philox of the seed, the hash of the name, and the index", () => {
    const stream = new RandomStream(7, "");
    // FNV-1a of nothing is its offset basis.
    const [a, b, c, d] = philoxByDefinition([7, 0x811c9dc5], [3, 0, 0, 0]);
    expect([12, 13, 14, 15].map((index) => stream.uniform(index) * 2 ** 32)).toEqual([a, b, c, d]);
    const [far] = philoxByDefinition([7, 0x811c9dc5], [5, 1, 0, 0]);
    expect(stream.uniform((2 ** 32 + 5) * 4) * 2 ** 32).toBe(far);
    const [middle] = philoxByDefinition([7, 0x811c9dc5], [0xfffffff0, 0, 0, 0]);
    expect(stream.uniform(0xfffffff0 * 4) * 2 ** 32).toBe(middle);
  });

  test("gives the same numbers in any order and any portion", () => {
    const stream = new RandomStream(3, "x");
    expect(new RandomStream(3, "x").uniform(1001)).toBe(stream.uniform(1001));
    const long = stream.normal(1000);
    for (const count of [0, 1, 2, 3, 5, 998]) expect(stream.normal(count)).toEqual(long.slice(0, count));
    const uniforms = stream.uniforms(1000);
    for (const count of [0, 1, 7]) expect(stream.uniforms(count)).toEqual(uniforms.slice(0, count));
    expect(uniforms[123]).toBe(Math.fround(stream.uniform(123)));
  });

  test("differs from streams of other seeds and names", () => {
    const first = (seed: number, name: string) => new RandomStream(seed, name).uniform(0);
    const seen = [first(1, "a"), first(2, "a"), first(1, "b"), first(1, "ab"), first(1, "ba"), first(-1, "a")];
    expect(new Set(seen).size).toBe(seen.length);
    const a = new RandomStream(1, "layers.0.W_Q.weight").normal(20_000);
    const b = new RandomStream(1, "layers.1.W_Q.weight").normal(20_000);
    const correlation = a.reduce((total, value, index) => total + value * (b[index] ?? 0), 0) / a.length;
    expect(Math.abs(correlation)).toBeLessThan(4 / Math.sqrt(a.length));
  });

  test("counts only the lower 32 bits of the seed", () => {
    expect(new RandomStream(2 ** 32 + 5, "x").uniform(0)).toBe(new RandomStream(5, "x").uniform(0));
  });
});

describe("distributions", () => {
  const count = 200_000;

  test("uniform numbers fill [0, 1) evenly", () => {
    const values = new RandomStream(0, "uniform").uniforms(count);
    const { mean, variance } = moments(values);
    // Four standard errors of each.
    expect(Math.abs(mean - 1 / 2)).toBeLessThan(4 * Math.sqrt(1 / 12 / count));
    expect(Math.abs(variance - 1 / 12)).toBeLessThan(4 * Math.sqrt(1 / 180 / count));
    const buckets = new Array<number>(64).fill(0);
    for (const value of values) buckets[Math.floor(value * 64)] = (buckets[Math.floor(value * 64)] ?? 0) + 1;
    const expected = count / 64;
    const chiSquare = buckets.reduce((total, seen) => total + (seen - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(63 + 4 * Math.sqrt(2 * 63));
  });

  test("uniform numbers stay below the upper bound after rounding to float32", () => {
    // The range is so narrow that most of its numbers are nearer to the bound than to the float32 below it.
    for (const high of [1, 0.1, 3, 1e-40, 0, -2]) {
      const low = high - Math.max(1e-46, Math.abs(high) * 1e-9);
      const values = new RandomStream(0, "uniform").uniforms(67, { low, high });
      for (const value of values) expect(value).toBeLessThan(high);
    }
  });

  test("normal numbers have the moments of a normal distribution", () => {
    const { mean, variance, skew, kurtosis } = moments(new RandomStream(0, "normal").normal(count));
    expect(Math.abs(mean)).toBeLessThan(4 * Math.sqrt(1 / count));
    expect(Math.abs(variance - 1)).toBeLessThan(4 * Math.sqrt(2 / count));
    expect(Math.abs(skew)).toBeLessThan(4 * Math.sqrt(6 / count));
    expect(Math.abs(kurtosis - 3)).toBeLessThan(4 * Math.sqrt(24 / count));
  });

  test("mean and deviation are as asked for", () => {
    const { mean, variance } = moments(new RandomStream(1, "normal").normal(count, { mean: 5, deviation: 0.02 }));
    expect(Math.abs(mean - 5)).toBeLessThan((4 * 0.02) / Math.sqrt(count));
    expect(Math.sqrt(variance)).toBeCloseTo(0.02, 3);
  });

  test("pairs of the same block are not correlated", () => {
    const values = new RandomStream(2, "normal").normal(count);
    for (const distance of [1, 2, 3]) {
      let total = 0;
      for (let i = 0; i + distance < count; i++) total += (values[i] ?? 0) * (values[i + distance] ?? 0);
      expect(Math.abs(total / count)).toBeLessThan(4 / Math.sqrt(count));
    }
  });

  test("whole numbers are even over their range and never reach the bound", () => {
    const stream = new RandomStream(0, "below");
    const seen = new Array<number>(7).fill(0);
    for (let index = 0; index < 70_000; index++) {
      const value = stream.below(7, index);
      seen[value] = (seen[value] ?? 0) + 1;
    }
    expect(seen.length).toBe(7);
    const chiSquare = seen.reduce((total, times) => total + (times - 10_000) ** 2 / 10_000, 0);
    expect(chiSquare).toBeLessThan(6 + 4 * Math.sqrt(12));
    for (let index = 0; index < 100; index++) expect(stream.below(2 ** 32, index)).toBeLessThan(2 ** 32);
    expect(stream.below(1, 5)).toBe(0);
  });
});
