import { f32, ShapeError, transpose } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const transposeCases = casesOf(
  "transpose",
  [
    testCase({
      name: "matrix",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => transpose(x, [1, 0]),
      tolerance: exact,
      expected: ({ x }) => ({
        value: Array.from({ length: 15 }, (_, i) => x?.data[(i % 3) * 5 + Math.floor(i / 3)] ?? 0),
      }),
    }),
    testCase({
      name: "heads",
      inputs: { x: floats([2, 7, 3, 4]) },
      program: ({ x }) => transpose(x, [0, 2, 1, 3]),
      tolerance: exact,
    }),
    testCase({
      name: "cycle",
      inputs: { x: floats([2, 3, 4]) },
      program: ({ x }) => transpose(x, [2, 0, 1]),
      tolerance: exact,
      note: "a permutation that is not its own inverse",
    }),
    testCase({
      name: "identity",
      inputs: { x: floats([2, 3]) },
      program: ({ x }) => transpose(x, [0, 1]),
      tolerance: exact,
    }),
    testCase({ name: "scalar", inputs: { x: floats([]) }, program: ({ x }) => transpose(x, []), tolerance: exact }),
    testCase({
      name: "empty",
      inputs: { x: floats([3, 0, 2]) },
      program: ({ x }) => transpose(x, [2, 1, 0]),
      tolerance: exact,
    }),
    testCase({
      name: "twice",
      inputs: { x: floats([2, 3, 4]) },
      program: ({ x }) => transpose(transpose(x, [2, 0, 1]), [0, 2, 1]),
      tolerance: exact,
    }),
    testCase({
      name: "large",
      inputs: { x: floats([301, 257]) },
      program: ({ x }) => transpose(x, [1, 0]),
      tolerance: exact,
    }),
    testCase({
      name: "perf-4096x1024",
      inputs: { x: floats([4096, 1024]) },
      program: ({ x }) => transpose(x, [1, 0]),
      perf: true,
    }),
    testCase({ name: "int32", inputs: { x: integers([2, 3], { high: 9 }) }, program: ({ x }) => transpose(x, [1, 0]) }),
    testCase({ name: "bool", inputs: { x: booleans([2, 3]) }, program: ({ x }) => transpose(x, [1, 0]) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => transpose(x, [1, 2, 0]),
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
        program: ({ x }) => transpose(x, [1, 0]),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([4, 4]) },
      program: ({ x }) => transpose(x, [1, 0]),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "repeated axis",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => transpose(x, [0, 0]),
      error: ShapeError,
      message: "transpose: expected a permutation of 0 to 1, got [0,0]",
    }),
    refusal({
      name: "rank",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => transpose(x, [0]),
      error: ShapeError,
      message: "transpose: expected a permutation of 0 to 1, got [0]",
    }),
    refusal({
      name: "axis out of range",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => transpose(x, [0, 2]),
      error: ShapeError,
      message: "transpose: expected a permutation of 0 to 1, got [0,2]",
    }),
  ],
);
