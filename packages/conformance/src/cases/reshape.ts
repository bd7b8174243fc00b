import { f32, reshape, ShapeError, transpose } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const reshapeCases = casesOf(
  "reshape",
  [
    testCase({
      name: "split-and-merge",
      inputs: { x: floats([4, 6]) },
      program: ({ x }) => reshape(x, [2, 2, 3, 2]),
      tolerance: exact,
      expected: ({ x }) => ({ value: x?.data ?? [] }),
    }),
    testCase({
      name: "to-scalar",
      inputs: { x: floats([1, 1]) },
      program: ({ x }) => reshape(x, []),
      tolerance: exact,
    }),
    testCase({
      name: "of-scalar",
      inputs: { x: floats([]) },
      program: ({ x }) => reshape(x, [1, 1]),
      tolerance: exact,
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([0, 3]) },
      program: ({ x }) => reshape(x, [5, 0]),
      tolerance: exact,
    }),
    testCase({
      name: "after-transpose",
      inputs: { x: floats([5, 7]) },
      program: ({ x }) => reshape(transpose(x, [1, 0]), [35]),
      tolerance: exact,
      note: "the elements in their new order, not as they lie in memory",
    }),
    testCase({ name: "int32", inputs: { x: integers([6], { high: 9 }) }, program: ({ x }) => reshape(x, [2, 3]) }),
    testCase({ name: "bool", inputs: { x: booleans([6]) }, program: ({ x }) => reshape(x, [3, 2]) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 6]) },
      program: ({ x }) => reshape(x, [x.shape[0]?.times(x.shape[1] ?? 1) ?? 1, 3, 2]),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([2, 3], { dtype }) },
        program: ({ x }) => reshape(x, [3, 2]),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([16]) },
      program: ({ x }) => reshape(x, [4, 4]),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "count",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => reshape(x, [4]),
      error: ShapeError,
      message: "reshape: expected 6 elements for [2,3], got 4 in [4]",
    }),
    refusal({
      name: "symbolic count",
      inputs: { x: f32("T", 3) },
      program: ({ x }) => reshape(x, ["T"]),
      error: ShapeError,
      message: "reshape: expected 3*T elements for [T,3], got T in [T]",
    }),
    refusal({
      name: "negative sizes",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => reshape(x, [-2, -3]),
      error: ShapeError,
      message: "reshape: sizes must be >= 0, got [-2,-3]",
    }),
  ],
);
