import { f32, mean, ShapeError } from "@sisa/core";
import { casesOf, floats, otherFloats, refusal, testCase } from "../case.ts";

/** `mean` is a function, spelt with sum and div. */
export const meanCases = casesOf(
  "mean",
  [
    testCase({
      name: "all",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => mean(x),
      expected: ({ x }) => ({ value: [[...(x?.data ?? [])].reduce((a, b) => a + b, 0) / 15] }),
    }),
    testCase({
      name: "axis",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => mean(x, { axes: [0], keepDims: true }),
    }),
    testCase({ name: "scalar", inputs: { x: floats([]) }, program: ({ x }) => mean(x) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => ({ rows: mean(x, { axes: [1] }), all: mean(x) }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({ name: dtype, inputs: { x: floats([4, 9], { dtype }) }, program: ({ x }) => mean(x, { axes: [1] }) }),
    ),
    testCase({
      name: "of-nothing",
      inputs: { x: floats([2, 0]) },
      program: ({ x }) => mean(x, { axes: [1] }),
      ieee: true,
      note: "NaN",
    }),
  ],
  [
    refusal({
      name: "axis",
      inputs: { x: f32(3) },
      program: ({ x }) => mean(x, { axes: [1] }),
      error: ShapeError,
      message: "mean: expected an axis from -1 to 0, got 1",
    }),
  ],
);
