// What independent formulas of several cases share. Plain loops in float64, written without the operations they check.

import type { NdArray } from "@sisa/core";

/** Applies a function to each row of the last axis. */
export function byRows(x: NdArray | undefined, rule: (row: readonly number[]) => readonly number[]): Float64Array {
  const width = x?.shape.at(-1) ?? 1;
  const rows = width === 0 ? 0 : (x?.data.length ?? 0) / width;
  const values: number[] = [];
  for (let row = 0; row < rows; row++) {
    values.push(...rule(Array.from(x?.data.subarray(row * width, (row + 1) * width) ?? [])));
  }
  return Float64Array.from(values);
}

/** The element at a place given by one index for each axis. */
export function at(x: NdArray | undefined, ...place: readonly number[]): number {
  if (x === undefined) throw new Error("the formula needs an input that the case does not have");
  const index = place.reduce((flat, i, axis) => flat * (x.shape[axis] ?? 1) + i, 0);
  return x.data[index] ?? Number.NaN;
}

export function dot(count: number, a: (i: number) => number, b: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += a(i) * b(i);
  return total;
}

/** Weights of a row of scores; keys that are not seen score -Infinity. Where none is seen, all weights are zero. */
export function softmaxOf(scores: readonly number[]): number[] {
  const largest = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (largest === Number.NEGATIVE_INFINITY) return scores.map(() => 0);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** The sigmoid of each score less the logarithm of how many keys are seen, which are those whose score is finite. */
export function sigmoidsOf(scores: readonly number[]): number[] {
  const count = scores.filter((score) => score !== Number.NEGATIVE_INFINITY).length;
  return scores.map((score) => 1 / (1 + count * Math.exp(-score)));
}

/**
 * Attention by its definition: `score(batch, head, i, j)`, or -Infinity where query i does not see key j.
 * @param weigh what makes weights of a row of scores
 */
export function attend(
  [batches, queries, heads]: readonly [number, number, number],
  v: NdArray | undefined,
  score: (batch: number, head: number, i: number, j: number) => number,
  weigh = softmaxOf,
): Float64Array {
  const [, keys = 0, , width = 0] = v?.shape ?? [];
  const value = new Float64Array(batches * queries * heads * width);
  for (let batch = 0; batch < batches; batch++) {
    for (let i = 0; i < queries; i++) {
      for (let head = 0; head < heads; head++) {
        const weights = weigh(Array.from({ length: keys }, (_, j) => score(batch, head, i, j)));
        for (let e = 0; e < width; e++) {
          const index = ((batch * queries + i) * heads + head) * width + e;
          value[index] = dot(
            keys,
            (j) => weights[j] ?? 0,
            (j) => at(v, batch, j, head, e),
          );
        }
      }
    }
  }
  return value;
}
