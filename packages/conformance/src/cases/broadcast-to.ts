import { broadcastTo, f32, ShapeError } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const broadcastToCases = casesOf(
  "broadcastTo",
  [
    testCase({
      name: "scalar",
      inputs: { x: floats([]) },
      program: ({ x }) => broadcastTo(x, [2, 3]),
      tolerance: exact,
      expected: ({ x }) => ({ value: new Array(6).fill(x?.data[0]) }),
    }),
    testCase({
      name: "new-axis",
      inputs: { x: floats([3]) },
      program: ({ x }) => broadcastTo(x, [4, 3]),
      tolerance: exact,
    }),
    testCase({
      name: "column",
      inputs: { x: floats([3, 1]) },
      program: ({ x }) => broadcastTo(x, [3, 5]),
      tolerance: exact,
    }),
    testCase({
      name: "inner-axis",
      inputs: { x: floats([2, 1, 4]) },
      program: ({ x }) => broadcastTo(x, [3, 2, 5, 4]),
      tolerance: exact,
    }),
    testCase({
      name: "to-nothing",
      inputs: { x: floats([1, 3]) },
      program: ({ x }) => broadcastTo(x, [0, 3]),
      tolerance: exact,
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([2, 1], { high: 9 }) },
      program: ({ x }) => broadcastTo(x, [2, 3]),
    }),
    testCase({ name: "bool", inputs: { x: booleans([2, 1]) }, program: ({ x }) => broadcastTo(x, [2, 3]) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats([1, 3]), like: floats(["B", "T"]) },
      program: ({ x, like }) => ({ value: broadcastTo(x, ["B", "T", 3]), like }),
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
        inputs: { x: floats([3], { dtype }) },
        program: ({ x }) => broadcastTo(x, [2, 3]),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([16]) },
      program: ({ x }) => broadcastTo(x, [3, 16]),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "sizes",
      inputs: { x: f32(2) },
      program: ({ x }) => broadcastTo(x, [3]),
      error: ShapeError,
      message: "broadcastTo: expected a shape that [2] broadcasts to, got [3]",
    }),
    refusal({
      name: "fewer axes",
      inputs: { x: f32(2, 3) },
      program: ({ x }) => broadcastTo(x, [3]),
      error: ShapeError,
      message: "broadcastTo: expected a shape that [2,3] broadcasts to, got [3]",
    }),
    refusal({
      name: "shrinking",
      inputs: { x: f32(3) },
      program: ({ x }) => broadcastTo(x, [1]),
      error: ShapeError,
      message: "broadcastTo: expected a shape that [3] broadcasts to, got [1]",
    }),
  ],
);
