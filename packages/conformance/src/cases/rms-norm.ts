import {
  apply,
  DTypeError,
  f32,
  i32,
  rmsNorm,
  rmsNormBackwardOp,
  ShapeError,
  type Tensor,
  transpose,
} from "@sisa/core";
import { casesOf, floatSpec, floats, given, otherFloats, refusal, testCase, type Values } from "../case.ts";
import { byRows } from "./formulas.ts";

function formula({ x, weight }: Values) {
  return {
    value: byRows(x, (row) => {
      const root = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0) / row.length + 1e-6);
      return row.map((value, index) => (value / root) * (weight?.data[index] ?? 0));
    }),
  };
}

export const rmsNormCases = casesOf(
  "rmsNorm",
  [
    testCase({
      name: "rows",
      inputs: { x: floats([5, 7]), weight: floats([7]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      expected: formula,
    }),
    testCase({
      name: "vector",
      inputs: { x: floats([9]), weight: floats([9]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
    }),
    testCase({
      name: "three-axes",
      inputs: { x: floats([2, 3, 33]), weight: floats([33]) },
      program: ({ x, weight }) => rmsNorm(x, weight, { epsilon: 1e-5 }),
    }),
    testCase({
      name: "epsilon",
      inputs: { x: floats([4, 6], { low: -1e-3, high: 1e-3 }), weight: floats([6]) },
      program: ({ x, weight }) => rmsNorm(x, weight, { epsilon: 1e-6 }),
      differences: { step: 1e-7, relative: 1e-5 },
      note: "rows as small as the root of epsilon",
    }),
    testCase({
      name: "zero-row",
      inputs: { x: given(f32(2, 3), [0, 0, 0, 1, 2, 3]), weight: floats([3]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      differences: { step: 1e-6, relative: 1e-4 },
    }),
    testCase({
      name: "one",
      inputs: { x: floats([4, 1], { low: 0.5, high: 2 }), weight: floats([1]) },
      program: ({ x, weight }) => rmsNorm(x, weight, { epsilon: 0.1 }),
    }),
    testCase({
      name: "no-rows",
      inputs: { x: floats([0, 4]), weight: floats([4]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
    }),
    testCase({
      name: "wide",
      inputs: { x: floats([3, 1025]), weight: floats([1025]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
    }),
    testCase({
      name: "strided",
      inputs: { x: floats([6, 7]), weight: floats([6]) },
      program: ({ x, weight }) => rmsNorm(transpose(x, [1, 0]), weight),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 5]), weight: floats([5]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    testCase({
      name: "perf-8192x512",
      inputs: { x: floats([8192, 512]), weight: floats([512]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      perf: true,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([3, 33], { dtype }), weight: floats([33], { dtype }) },
        program: ({ x, weight }) => rmsNorm(x, weight),
      }),
    ),
    ...(["float16", "bfloat16"] as const).map((dtype) =>
      testCase({
        name: `${dtype}-with-float32-weight`,
        inputs: { x: floats([3, 33], { dtype }), weight: floats([33]) },
        program: ({ x, weight }) => rmsNorm(x, weight),
        gradientTolerance: { nmse: dtype === "float16" ? 2e-6 : 1e-4, reason: "the output's gradient has its dtype" },
      }),
    ),
    testCase({
      name: "float16-large",
      inputs: {
        x: floats([2, 16], { low: 300, high: 900, dtype: "float16" }),
        weight: floats([16], { dtype: "float16" }),
      },
      program: ({ x, weight }) => rmsNorm(x, weight),
      differences: { step: 1e-2, relative: 1e-4 },
      note: "squares are beyond float16, so statistics must be wider",
    }),
    testCase({
      name: "hostile",
      inputs: {
        x: given(f32(3, 2), [Number.NaN, 1, Number.POSITIVE_INFINITY, 1, 1, 2]),
        weight: given(f32(2), [1, 2]),
      },
      program: ({ x, weight }) => rmsNorm(x, weight),
      ieee: true,
      note: "rows do not touch one another",
    }),
  ],
  [
    refusal({
      name: "weight",
      inputs: { x: f32(2, 64), weight: f32(32) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      error: ShapeError,
      message: "rmsNorm: weight must be [M] = [64], got [32]",
    }),
    refusal({
      name: "scalar",
      inputs: { x: f32(), weight: f32(1) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      error: ShapeError,
      message: "rmsNorm: x must be [...,M], got []",
    }),
    refusal({
      name: "integers",
      inputs: { x: i32(2, 4), weight: f32(4) },
      program: ({ x, weight }) => rmsNorm(x as unknown as Tensor, weight),
      error: DTypeError,
      message: "rmsNorm: x must be float, got int32[2,4]",
    }),
    refusal({
      name: "integer weight",
      inputs: { x: f32(2, 4), weight: i32(4) },
      program: ({ x, weight }) => rmsNorm(x, weight as unknown as Tensor),
      error: DTypeError,
      message: "rmsNorm: weight must be float, got int32[4]",
    }),
    refusal({
      name: "widths",
      inputs: { x: f32(2, 4), weight: floatSpec("float64", [4]) },
      program: ({ x, weight }) => rmsNorm(x, weight),
      error: DTypeError,
      message: "rmsNorm: mul: dtypes differ, got float32[2,4] and float64[4]; cast one of them",
    }),
  ],
);

export const rmsNormBackwardCases = casesOf("rmsNormBackward", [
  testCase({
    name: "rows",
    inputs: { x: floats([5, 7]), weight: floats([7]), gradient: floats([5, 7]) },
    program: (inputs) => apply(rmsNormBackwardOp, inputs, { epsilon: 1e-6 }),
    note: "also run by the gradients of rmsNorm",
  }),
  testCase({
    name: "symbolic",
    inputs: { x: floats(["B", "T", 5]), weight: floats([5]), gradient: floats(["B", "T", 5]) },
    program: (inputs) => apply(rmsNormBackwardOp, inputs, { epsilon: 1e-6 }),
    sizes: [
      { B: 2, T: 5 },
      { B: 1, T: 1 },
      { B: 3, T: 0 },
    ],
  }),
]);
