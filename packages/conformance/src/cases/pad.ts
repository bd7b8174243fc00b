import { f32, pad, ShapeError } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const padCases = casesOf(
  "pad",
  [
    testCase({
      name: "both-ends",
      inputs: { x: floats([4]) },
      program: ({ x }) => pad(x, { axis: 0, before: 2, after: 3 }),
      tolerance: exact,
      expected: ({ x }) => ({ value: [0, 0, ...(x?.data ?? []), 0, 0, 0] }),
    }),
    testCase({
      name: "inner-axis",
      inputs: { x: floats([3, 2, 4]) },
      program: ({ x }) => pad(x, { axis: 1, before: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "last-axis",
      inputs: { x: floats([3, 2]) },
      program: ({ x }) => pad(x, { axis: -1, after: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "of-empty",
      inputs: { x: floats([0, 2]) },
      program: ({ x }) => pad(x, { axis: 0, after: 2 }),
      tolerance: exact,
    }),
    testCase({
      name: "stays-empty",
      inputs: { x: floats([0, 2]) },
      program: ({ x }) => pad(x, { axis: 1, after: 2 }),
      tolerance: exact,
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([5], { low: 1, high: 9 }) },
      program: ({ x }) => pad(x, { axis: 0, before: 1 }),
    }),
    testCase({ name: "bool", inputs: { x: booleans([5]) }, program: ({ x }) => pad(x, { axis: 0, after: 2 }) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => pad(x, { axis: 1, before: 1, after: 2 }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
      tolerance: exact,
    }),
    testCase({
      name: "symbolic-amount",
      inputs: { x: floats(["T", 2]), y: floats(["P"]) },
      program: ({ x, y }) => ({ value: pad(x, { axis: 0, before: "P" }), y }),
      sizes: [
        { T: 3, P: 4 },
        { T: 2, P: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([2, 3], { dtype }) },
        program: ({ x }) => pad(x, { axis: 1, after: 1 }),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([16]) },
      program: ({ x }) => pad(x, { axis: 0, before: 1, after: 1 }),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "negative",
      inputs: { x: f32(3) },
      program: ({ x }) => pad(x, { axis: 0, before: -1 }),
      error: ShapeError,
      message: "pad: expected paddings >= 0, got -1 before and 0 after on axis 0",
    }),
    refusal({
      name: "axis",
      inputs: { x: f32(3) },
      program: ({ x }) => pad(x, { axis: 1, before: 1 }),
      error: ShapeError,
      message: "pad: expected an axis from -1 to 0, got 1",
    }),
  ],
);
