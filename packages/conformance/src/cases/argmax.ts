import { argmax, f32, ShapeError, type Tensor, transpose } from "@sisa/core";
import { casesOf, distinct, floatSpec, given, otherFloats, refusal, testCase } from "../case.ts";
import { unaryRefusals } from "./refusals.ts";

export const argmaxCases = casesOf(
  "argmax",
  [
    testCase({
      name: "rows",
      inputs: { x: given(f32(3, 4), [1, 3, 2, 0, -1, -3, -2, -0.5, 5, 4, 4, 4]) },
      program: ({ x }) => argmax(x),
      expected: () => ({ value: [1, 3, 0] }),
    }),
    testCase({
      name: "ties",
      inputs: { x: given(f32(3, 4), [0, 2, 2, 1, 1, 1, 1, 1, -1, 0, -0, 0]) },
      program: ({ x }) => argmax(x),
      expected: () => ({ value: [1, 0, 1] }),
      note: "the first of equal ones",
    }),
    testCase({ name: "vector", inputs: { x: distinct([9]) }, program: ({ x }) => argmax(x) }),
    testCase({ name: "one", inputs: { x: distinct([5, 1]) }, program: ({ x }) => argmax(x) }),
    testCase({ name: "large", inputs: { x: distinct([3, 32_003]) }, program: ({ x }) => argmax(x) }),
    testCase({ name: "leading", inputs: { x: distinct([2, 3, 4]) }, program: ({ x }) => argmax(x) }),
    testCase({ name: "no-rows", inputs: { x: distinct([0, 4]) }, program: ({ x }) => argmax(x) }),
    testCase({ name: "strided", inputs: { x: distinct([5, 4]) }, program: ({ x }) => argmax(transpose(x, [1, 0])) }),
    testCase({
      name: "symbolic",
      inputs: { x: distinct(["B", "T", 5]) },
      program: ({ x }) => argmax(x),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({ name: dtype, inputs: { x: distinct([3, 4], { dtype }) }, program: ({ x }) => argmax(x) }),
    ),
    testCase({
      name: "infinities",
      inputs: {
        x: given(floatSpec("float32", [3, 3]), [
          Number.NEGATIVE_INFINITY,
          -3e38,
          Number.NEGATIVE_INFINITY,
          1,
          Number.POSITIVE_INFINITY,
          3e38,
          Number.NEGATIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
          Number.NEGATIVE_INFINITY,
        ]),
      },
      program: ({ x }) => argmax(x),
      expected: () => ({ value: [1, 1, 0] }),
      ieee: true,
      note: "a place among NaN is not specified",
    }),
  ],
  [
    ...unaryRefusals("argmax", (x) => argmax(x as Tensor)),
    refusal({
      name: "nothing",
      inputs: { x: f32(3, 0) },
      program: ({ x }) => argmax(x),
      error: ShapeError,
      message: "argmax: expected a last axis that is not empty, got [3,0]",
    }),
    refusal({
      name: "scalar",
      inputs: { x: f32() },
      program: ({ x }) => argmax(x),
      error: ShapeError,
      message: "argmax: expected a last axis that is not empty, got []",
    }),
  ],
);
