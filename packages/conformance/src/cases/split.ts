import { dim, f32, ShapeError, split, type Tensor } from "@sisa/core";
import { casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

/** The parts by their places. */
function parts<K extends "float" | "int">(tensors: readonly Tensor<K>[]) {
  return Object.fromEntries(tensors.map((tensor, index) => [`part${index}`, tensor]));
}

export const splitCases = casesOf(
  "split",
  [
    testCase({
      name: "vector",
      inputs: { x: floats([7]) },
      program: ({ x }) => parts(split(x, { axis: 0, sizes: [2, 4, 1] })),
      tolerance: exact,
      expected: ({ x }) => ({
        part0: x?.data.slice(0, 2) ?? [],
        part1: x?.data.slice(2, 6) ?? [],
        part2: x?.data.slice(6) ?? [],
      }),
    }),
    testCase({
      name: "inner-axis",
      inputs: { x: floats([3, 5, 4]) },
      program: ({ x }) => parts(split(x, { axis: 1, sizes: [1, 4] })),
      tolerance: exact,
    }),
    testCase({
      name: "negative-axis",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => parts(split(x, { axis: -1, sizes: [3, 2] })),
      tolerance: exact,
    }),
    testCase({
      name: "middle-alone",
      inputs: { x: floats([2, 6]) },
      program: ({ x }) => ({ value: split(x, { axis: 1, sizes: [2, 3, 1] })[1] }),
      tolerance: exact,
      note: "parts that nothing reads have a gradient of zero",
    }),
    testCase({
      name: "empty-part",
      inputs: { x: floats([2, 3]) },
      program: ({ x }) => parts(split(x, { axis: 1, sizes: [0, 2, 1] })),
      tolerance: exact,
    }),
    testCase({
      name: "eleven",
      inputs: { x: floats([11, 2]) },
      program: ({ x }) => parts(split(x, { axis: 0, sizes: new Array<number>(11).fill(1) })),
      tolerance: exact,
      note: "more parts than there are digits: their order is by number, not by text",
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([2, 6], { high: 9 }) },
      program: ({ x }) => parts(split(x, { axis: 1, sizes: [3, 3] })),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => parts(split(x, { axis: 1, sizes: [1, dim("T").minus(1)] })),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([5, 3], { dtype }) },
        program: ({ x }) => parts(split(x, { axis: 0, sizes: [2, 3] })),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([16]) },
      program: ({ x }) => parts(split(x, { axis: 0, sizes: [7, 9] })),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "too few",
      inputs: { x: f32(3, 5) },
      program: ({ x }) => parts(split(x, { axis: 1, sizes: [2, 2] })),
      error: ShapeError,
      message: "split: expected parts of 5 places on axis 1, got 2 + 2",
    }),
    refusal({
      name: "axis",
      inputs: { x: f32(3, 5) },
      program: ({ x }) => parts(split(x, { axis: 2, sizes: [5] })),
      error: ShapeError,
      message: "split: expected an axis from -2 to 1, got 2",
    }),
  ],
);
