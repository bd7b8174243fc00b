import { f32, logSumExp, type Tensor, transpose } from "@sisa/core";
import { casesOf, floats, given, otherFloats, testCase, type Values } from "../case.ts";
import { byRows } from "./formulas.ts";

function formula({ x }: Values) {
  return { value: byRows(x, (row) => [Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0))]) };
}

const apply = ({ x }: { readonly x: Tensor }) => logSumExp(x);

export const logSumExpCases = casesOf("logSumExp", [
  testCase({ name: "rows", inputs: { x: floats([5, 7], { low: -3, high: 3 }) }, program: apply, expected: formula }),
  testCase({ name: "vector", inputs: { x: floats([9]) }, program: apply }),
  testCase({ name: "one", inputs: { x: floats([4, 1]) }, program: apply }),
  testCase({ name: "no-rows", inputs: { x: floats([0, 4]) }, program: apply }),
  testCase({ name: "strided", inputs: { x: floats([6, 7]) }, program: ({ x }) => logSumExp(transpose(x, [1, 0])) }),
  testCase({ name: "long-row", inputs: { x: floats([3, 5003], { low: -8, high: 8 }) }, program: apply }),
  testCase({
    name: "large-numbers",
    inputs: { x: given(f32(2, 4), [1000, 999, 998, -1000, -5000, -5001, -5002, -9000]) },
    program: apply,
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
  ...otherFloats.map((dtype) => testCase({ name: dtype, inputs: { x: floats([3, 7], { dtype }) }, program: apply })),
  testCase({
    name: "masked",
    inputs: { x: given(f32(2, 3), [1, Number.NEGATIVE_INFINITY, 2, -3, -1e30, Number.NEGATIVE_INFINITY]) },
    program: apply,
    ieee: true,
    gradients: ["x"],
    differences: "none",
  }),
  testCase({
    name: "nothing",
    inputs: { x: given(f32(2, 2), [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY, 1, 2]) },
    program: apply,
    expected: formula,
    ieee: true,
    gradients: [],
    note: "the sum of nothing is zero",
  }),
  testCase({
    name: "hostile",
    inputs: { x: given(f32(2, 2), [Number.NaN, 1, 1, 2]) },
    program: apply,
    ieee: true,
  }),
]);
