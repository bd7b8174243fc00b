import { DTypeError, f32, i32, linearScan, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floatSpec, floats, given, otherFloats, refusal, testCase, type Values } from "../case.ts";

/** h_t = a_t h_{t-1} + b_t by its definition, for [B,T,N]. */
function recurrence({ a, b, h0 }: Values, reverse = false) {
  const [batches = 0, length = 0, row = 1] = a?.shape ?? [];
  const value = new Float64Array(batches * length * row);
  for (let batch = 0; batch < batches; batch++) {
    for (let i = 0; i < row; i++) {
      let h = h0?.data[batch * row + i] ?? 0;
      for (let step = 0; step < length; step++) {
        const index = (batch * length + (reverse ? length - 1 - step : step)) * row + i;
        h = (a?.data[index] ?? 0) * h + (b?.data[index] ?? 0);
        value[index] = h;
      }
    }
  }
  return { value };
}

/** Decay per token: from states that remember 8,192 steps to states that forget at once. */
const decays = [0.001, 0.05, 1, 20];

export const linearScanCases = casesOf(
  "linearScan",
  [
    ...[false, true].map((reverse) =>
      testCase({
        name: reverse ? "reverse" : "forward",
        inputs: { a: floats([2, 5, 3]), b: floats([2, 5, 3]) },
        program: ({ a, b }) => linearScan({ a, b }, { reverse }),
        expected: (values) => recurrence(values, reverse),
      }),
    ),
    ...[false, true].map((reverse) =>
      testCase({
        name: `with-state${reverse ? "-reverse" : ""}`,
        inputs: { a: floats([2, 5, 3]), b: floats([2, 5, 3]), h0: floats([2, 3]) },
        program: ({ a, b, h0 }) => linearScan({ a, b, h0 }, { reverse }),
        expected: (values) => recurrence(values, reverse),
      }),
    ),
    testCase({
      name: "no-width",
      inputs: { a: floats([3, 6]), b: floats([3, 6]), h0: floats([3]) },
      program: ({ a, b, h0 }) => linearScan({ a, b, h0 }),
    }),
    testCase({
      name: "two-widths",
      inputs: { a: floats([1, 6, 2, 3]), b: floats([1, 6, 2, 3]), h0: floats([1, 2, 3]) },
      program: ({ a, b, h0 }) => linearScan({ a, b, h0 }),
    }),
    testCase({
      name: "one-step",
      inputs: { a: floats([2, 1, 3]), b: floats([2, 1, 3]), h0: floats([2, 3]) },
      program: ({ a, b, h0 }) => linearScan({ a, b, h0 }),
    }),
    testCase({
      name: "one-step-reverse",
      inputs: { a: floats([2, 1, 3]), b: floats([2, 1, 3]) },
      program: ({ a, b }) => linearScan({ a, b }, { reverse: true }),
    }),
    ...[false, true].map((reverse) =>
      testCase({
        name: `no-steps${reverse ? "-reverse" : ""}`,
        inputs: { a: floats([2, 0, 3]), b: floats([2, 0, 3]), h0: floats([2, 3]) },
        program: ({ a, b, h0 }) => linearScan({ a, b, h0 }, { reverse }),
      }),
    ),
    testCase({
      name: "zero-factors",
      inputs: { a: given(f32(1, 6), [0.5, 0, 0, -1, 0, 2]), b: floats([1, 6]) },
      program: ({ a, b }) => linearScan({ a, b }),
      note: "gradients must not divide by what was multiplied",
    }),
    testCase({
      name: "symbolic",
      inputs: { a: floats(["B", "T", 2]), b: floats(["B", "T", 2]), h0: floats(["B", 2]) },
      program: ({ a, b, h0 }) => linearScan({ a, b, h0 }),
      sizes: [
        { B: 2, T: 9 },
        { B: 1, T: 1 },
        { B: 3, T: 2 },
      ],
    }),
    testCase({
      name: "symbolic-reverse",
      inputs: { a: floats(["B", "T", 2]), b: floats(["B", "T", 2]) },
      program: ({ a, b }) => linearScan({ a, b }, { reverse: true }),
      sizes: [
        { B: 2, T: 9 },
        { B: 1, T: 1 },
      ],
    }),
    ...decays.map((decay) =>
      testCase({
        name: `long-decay-${decay}`,
        inputs: {
          a: floats([1, 8192, 2], { low: Math.exp(-1.8 * decay), high: Math.exp(-0.2 * decay) }),
          b: floats([1, 8192, 2]),
        },
        program: ({ a, b }) => linearScan({ a, b }),
        expected: recurrence,
        differences: { elements: 2 },
      }),
    ),
    testCase({
      name: "perf-mamba",
      inputs: { a: floats([8, 512, 8192], { low: 0.5, high: 1 }), b: floats([8, 512, 8192]) },
      program: ({ a, b }) => linearScan({ a, b }),
      perf: true,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { a: floats([2, 5, 3], { dtype }), b: floats([2, 5, 3], { dtype }) },
        program: ({ a, b }) => linearScan({ a, b }),
      }),
    ),
    testCase({
      name: "overflow",
      inputs: { a: given(f32(1, 4), [1, 1e20, 1e20, 0.5]), b: given(f32(1, 4), [1, 0, 0, 1]) },
      program: ({ a, b }) => linearScan({ a, b }),
      gradients: [],
      note: "1e40 is beyond float32 and stays infinite",
    }),
    testCase({
      name: "hostile",
      inputs: {
        a: given(f32(3, 4), [1, 1, 0, 1, 1, Number.NaN, 1, 1, 1, 1, 0, 1]),
        b: given(f32(3, 4), [1, Number.POSITIVE_INFINITY, 1, 1, 1, 1, 1, 1, Number.NEGATIVE_INFINITY, 1, 1, 1]),
      },
      program: ({ a, b }) => linearScan({ a, b }),
      ieee: true,
      note: "zero times an infinity is NaN, as in a loop",
    }),
  ],
  [
    refusal({
      name: "shapes",
      inputs: { a: f32(2, 5), b: f32(2, 4) },
      program: ({ a, b }) => linearScan({ a, b }),
      error: ShapeError,
      message: "linearScan: a and b must both be [B,T,...], got [2,5] and [2,4]",
    }),
    refusal({
      name: "rank",
      inputs: { a: f32(2), b: f32(2) },
      program: ({ a, b }) => linearScan({ a, b }),
      error: ShapeError,
      message: "linearScan: a and b must both be [B,T,...], got [2] and [2]",
    }),
    refusal({
      name: "state",
      inputs: { a: f32(2, 5, 3), b: f32(2, 5, 3), h0: f32(2, 5) },
      program: ({ a, b, h0 }) => linearScan({ a, b, h0 }),
      error: ShapeError,
      message: "linearScan: h0 must be [2,3], got [2,5]",
    }),
    refusal({
      name: "integers",
      inputs: { a: i32(2, 5), b: i32(2, 5) },
      program: ({ a, b }) => linearScan({ a: a as unknown as Tensor, b: b as unknown as Tensor }),
      error: DTypeError,
      message: "linearScan: a must be float, got int32[2,5]",
    }),
    refusal({
      name: "width of the state",
      inputs: { a: f32(2, 5), b: f32(2, 5), h0: floatSpec("bfloat16", [2]) },
      program: ({ a, b, h0 }) => linearScan({ a, b, h0 }),
      error: DTypeError,
      message: "linearScan: dtypes differ, got float32[2,5] and bfloat16[2]; cast one of them",
    }),
  ],
);
