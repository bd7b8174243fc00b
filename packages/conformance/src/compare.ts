// How close is close enough: normalised mean square error, with NaN and infinities in the same places.

import { type DType, kindOf, roundTo } from "@sisa/core";
import type { Tolerance } from "./case.ts";

/**
 * Largest NMSE where a case names none. float32 is that of ggml's test-backend-ops; narrow floats get a few roundings of
 * their width (2^-11 and 2^-8, squared).
 */
const defaultNmse: Readonly<Record<DType, number>> = {
  float64: 1e-7,
  float32: 1e-7,
  float16: 2e-6,
  bfloat16: 1e-4,
  int32: 0,
  bool: 0,
};

/** Elements this small may be flushed to zero wherever relative errors are compared. */
const smallest = 1.2e-38;

/** What is wrong with an output, or undefined where it is as expected. `expected` is rounded to the dtype first. */
export function difference(
  dtype: DType,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance = {},
): string | undefined {
  if (actual.length !== expected.length) return `has ${actual.length} elements, expected ${expected.length}`;
  if (kindOf(dtype) !== "float" || tolerance.exact) {
    return firstWhere(actual, expected, (a, b) => !Object.is(a, roundTo(dtype, b)));
  }
  if (tolerance.angle !== undefined) {
    const { angle } = tolerance;
    return firstWhere(
      actual,
      expected,
      (a, b) => !(angleBetween(a, b) <= angle) && !(Number.isNaN(a) && Number.isNaN(b)),
    );
  }
  const { absolute = 0, relative, nmse = defaultNmse[dtype] } = tolerance;
  let squaredError = 0;
  let squares = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i] ?? 0;
    const b = roundTo(dtype, expected[i] ?? 0);
    if (!Number.isFinite(a) || !Number.isFinite(b)) {
      if (!Object.is(a, b)) return at(i, a, b);
      continue;
    }
    const error = Math.abs(a - b);
    if (relative !== undefined && error > relative * Math.abs(b) + Math.max(absolute, smallest)) {
      return `${at(i, a, b)}: off by ${(error / Math.abs(b)).toExponential(1)}, allowed ${relative}`;
    }
    if (error > absolute) squaredError += error * error;
    squares += b * b;
  }
  const measured = squaredError === 0 ? 0 : squaredError / squares;
  if (measured <= nmse) return undefined;
  return `NMSE ${measured.toExponential(2)}, allowed ${nmse}; ${worst(actual, expected)}`;
}

/** Normalised mean square error over the finite elements; infinite where NaN or infinities differ. */
export function nmseOf(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let squaredError = 0;
  let squares = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i] ?? 0;
    const b = expected[i] ?? 0;
    if (!Number.isFinite(a) || !Number.isFinite(b)) {
      if (!Object.is(a, b)) return Number.POSITIVE_INFINITY;
      continue;
    }
    squaredError += (a - b) ** 2;
    squares += b * b;
  }
  return squaredError === 0 ? 0 : squaredError / squares;
}

function firstWhere(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  differs: (a: number, b: number) => boolean,
): string | undefined {
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i] ?? 0;
    const b = expected[i] ?? 0;
    if (differs(a, b)) return at(i, a, b);
  }
  return undefined;
}

function worst(actual: ArrayLike<number>, expected: ArrayLike<number>): string {
  let place = 0;
  let largest = -1;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs((actual[i] ?? 0) - (expected[i] ?? 0));
    if (error > largest) [largest, place] = [error, i];
  }
  return `worst ${at(place, actual[place] ?? 0, expected[place] ?? 0)}`;
}

function at(index: number, actual: number, expected: number): string {
  return `element ${index} is ${text(actual)}, expected ${text(expected)}`;
}

function text(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

/** Between two directions, from 0 to pi. */
function angleBetween(a: number, b: number): number {
  const turn = 2 * Math.PI;
  const rest = Math.abs(a - b) % turn;
  return Math.min(rest, turn - rest);
}
