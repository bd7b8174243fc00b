import { f32, ShapeError, softmax, type Tensor, transpose } from "@sisa/core";
import { casesOf, floats, given, otherFloats, refusal, testCase, type Values } from "../case.ts";
import { byRows } from "./formulas.ts";
import { unaryRefusals } from "./refusals.ts";

function formula({ x }: Values) {
  return {
    value: byRows(x, (row) => {
      const powers = row.map(Math.exp);
      const total = powers.reduce((a, b) => a + b, 0);
      return powers.map((power) => power / total);
    }),
  };
}

const apply = ({ x }: { readonly x: Tensor }) => softmax(x);

export const softmaxCases = casesOf(
  "softmax",
  [
    testCase({ name: "rows", inputs: { x: floats([5, 7], { low: -3, high: 3 }) }, program: apply, expected: formula }),
    testCase({ name: "vector", inputs: { x: floats([9]) }, program: apply }),
    testCase({ name: "one", inputs: { x: floats([4, 1]) }, program: apply }),
    testCase({ name: "no-rows", inputs: { x: floats([0, 4]) }, program: apply }),
    testCase({ name: "no-columns", inputs: { x: floats([3, 0]) }, program: apply }),
    testCase({ name: "three-axes", inputs: { x: floats([2, 3, 33]) }, program: apply }),
    testCase({ name: "strided", inputs: { x: floats([6, 7]) }, program: ({ x }) => softmax(transpose(x, [1, 0])) }),
    testCase({ name: "long-row", inputs: { x: floats([3, 5003], { low: -8, high: 8 }) }, program: apply }),
    testCase({
      name: "large-numbers",
      inputs: { x: given(f32(2, 4), [1000, 999, 998, -1000, -5000, -5001, -5002, -9000]) },
      program: apply,
      note: "neither overflows nor divides by zero",
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T"]) },
      program: apply,
      sizes: [
        { B: 2, T: 5 },
        { B: 3, T: 1 },
        { B: 0, T: 4 },
      ],
    }),
    testCase({ name: "perf-8192x1024", inputs: { x: floats([8192, 1024]) }, program: apply, perf: true }),
    ...otherFloats.map((dtype) => testCase({ name: dtype, inputs: { x: floats([3, 7], { dtype }) }, program: apply })),
    testCase({
      name: "masked",
      inputs: {
        x: given(f32(3, 3), [
          1,
          Number.NEGATIVE_INFINITY,
          2,
          Number.NEGATIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
          0,
          -1e30,
          1,
          Number.NEGATIVE_INFINITY,
        ]),
      },
      program: apply,
      ieee: true,
      gradients: ["x"],
      differences: "none",
      note: "-Infinity gets zero",
    }),
    testCase({
      name: "hostile",
      inputs: {
        x: given(f32(4, 2), [
          Number.NaN,
          1,
          Number.POSITIVE_INFINITY,
          1,
          Number.NEGATIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
          1,
          2,
        ]),
      },
      program: apply,
      ieee: true,
      note: "a row with NaN, +Infinity, or nothing finite is NaN, and only that row",
    }),
  ],
  [
    ...unaryRefusals("softmax", (x) => softmax(x as Tensor), "max: "),
    refusal({
      name: "scalar",
      inputs: { x: f32() },
      program: apply,
      error: ShapeError,
      message: "softmax: max: expected an axis, but a scalar has none; got -1",
    }),
  ],
);
