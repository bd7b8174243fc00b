import { cumulativeSum, f32, ShapeError, type Tensor, transpose } from "@sisa/core";
import { casesOf, floats, given, otherFloats, refusal, testCase } from "../case.ts";
import { unaryRefusals } from "./refusals.ts";

const directions = [false, true].flatMap((exclusive) => [false, true].map((reverse) => ({ exclusive, reverse })));

export const cumulativeSumCases = casesOf(
  "cumulativeSum",
  [
    testCase({
      name: "vector",
      inputs: { x: given(f32(4), [1, 2, 3, 4]) },
      program: ({ x }) => cumulativeSum(x, { axis: 0 }),
      expected: () => ({ value: [1, 3, 6, 10] }),
    }),
    ...directions.map(({ exclusive, reverse }) =>
      testCase({
        name: `middle-axis${exclusive ? "-exclusive" : ""}${reverse ? "-reverse" : ""}`,
        inputs: { x: floats([2, 5, 3]) },
        program: ({ x }) => cumulativeSum(x, { axis: 1, exclusive, reverse }),
      }),
    ),
    testCase({
      name: "exclusive-reverse-numbers",
      inputs: { x: given(f32(4), [1, 2, 3, 4]) },
      program: ({ x }) => cumulativeSum(x, { axis: -1, exclusive: true, reverse: true }),
      expected: () => ({ value: [9, 7, 4, 0] }),
    }),
    testCase({ name: "last-axis", inputs: { x: floats([3, 9]) }, program: ({ x }) => cumulativeSum(x, { axis: -1 }) }),
    testCase({ name: "first-axis", inputs: { x: floats([9, 3]) }, program: ({ x }) => cumulativeSum(x, { axis: 0 }) }),
    testCase({ name: "one", inputs: { x: floats([3, 1]) }, program: ({ x }) => cumulativeSum(x, { axis: 1 }) }),
    testCase({ name: "empty", inputs: { x: floats([3, 0]) }, program: ({ x }) => cumulativeSum(x, { axis: 1 }) }),
    testCase({ name: "no-rows", inputs: { x: floats([0, 3]) }, program: ({ x }) => cumulativeSum(x, { axis: 1 }) }),
    testCase({
      name: "strided",
      inputs: { x: floats([6, 7]) },
      program: ({ x }) => cumulativeSum(transpose(x, [1, 0]), { axis: 1 }),
    }),
    testCase({
      name: "long",
      inputs: { x: floats([2, 8192]) },
      program: ({ x }) => cumulativeSum(x, { axis: 1 }),
      differences: { elements: 2 },
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => cumulativeSum(x, { axis: 1, reverse: true }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([2, 9], { dtype }) },
        program: ({ x }) => cumulativeSum(x, { axis: 1 }),
      }),
    ),
    testCase({
      name: "hostile",
      inputs: {
        x: given(f32(3, 4), [
          1,
          Number.NaN,
          1,
          2,
          1,
          Number.POSITIVE_INFINITY,
          1,
          Number.NEGATIVE_INFINITY,
          -0,
          1,
          2,
          3,
        ]),
      },
      program: ({ x }) => cumulativeSum(x, { axis: 1 }),
      ieee: true,
      note: "NaN and infinities reach later elements and no other row",
    }),
  ],
  [
    ...unaryRefusals("cumulativeSum", (x) => cumulativeSum(x as Tensor, { axis: 0 })),
    refusal({
      name: "axis",
      inputs: { x: f32(3) },
      program: ({ x }) => cumulativeSum(x, { axis: 1 }),
      error: ShapeError,
      message: "cumulativeSum: expected an axis from -1 to 0, got 1",
    }),
  ],
);
