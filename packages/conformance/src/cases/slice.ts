import { dim, f32, ShapeError, slice } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const sliceCases = casesOf(
  "slice",
  [
    testCase({
      name: "middle",
      inputs: { x: floats([7]) },
      program: ({ x }) => slice(x, { axis: 0, start: 2, end: 5 }),
      tolerance: exact,
      expected: ({ x }) => ({ value: x?.data.slice(2, 5) ?? [] }),
    }),
    testCase({
      name: "inner-axis",
      inputs: { x: floats([3, 5, 4]) },
      program: ({ x }) => slice(x, { axis: 1, start: 1, end: 4 }),
      tolerance: exact,
    }),
    testCase({
      name: "negative-axis",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => slice(x, { axis: -1, end: 2 }),
      tolerance: exact,
    }),
    testCase({
      name: "nothing",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => slice(x, { axis: 0, start: 2, end: 2 }),
      tolerance: exact,
    }),
    testCase({
      name: "nothing-at-end",
      inputs: { x: floats([3, 5]) },
      program: ({ x }) => slice(x, { axis: 0, start: 3 }),
      tolerance: exact,
    }),
    testCase({
      name: "of-empty",
      inputs: { x: floats([0, 5]) },
      program: ({ x }) => slice(x, { axis: 1, start: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "overlapping",
      inputs: { x: floats([9]) },
      program: ({ x }) => ({ left: slice(x, { axis: 0, end: 6 }), right: slice(x, { axis: 0, start: 3 }) }),
      tolerance: exact,
      gradientTolerance: {},
      note: "gradients of the common part add up",
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([2, 6], { high: 9 }) },
      program: ({ x }) => slice(x, { axis: 1, start: 3 }),
    }),
    testCase({
      name: "bool",
      inputs: { x: booleans([6]) },
      program: ({ x }) => slice(x, { axis: 0, start: 1, end: 4 }),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => slice(x, { axis: 1, start: 1 }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
      ],
      tolerance: exact,
    }),
    testCase({
      name: "symbolic-last",
      inputs: { x: floats(["B", "T", 3]) },
      program: ({ x }) => slice(x, { axis: 1, start: dim("T").minus(1) }),
      sizes: [
        { B: 2, T: 5 },
        { B: 3, T: 1 },
      ],
      tolerance: exact,
      note: "the place depends on a size",
    }),
    testCase({
      name: "symbolic-end",
      inputs: { x: floats(["T", 2]), y: floats(["P"]) },
      program: ({ x, y }) => ({ value: slice(x, { axis: 0, end: "P" }), y }),
      sizes: [
        { T: 6, P: 4 },
        { T: 3, P: 3 },
        { T: 4, P: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([5, 3], { dtype }) },
        program: ({ x }) => slice(x, { axis: 0, start: 1 }),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([16]) },
      program: ({ x }) => slice(x, { axis: 0, start: 1, end: 15 }),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "past the end",
      inputs: { x: f32(3, 5) },
      program: ({ x }) => slice(x, { axis: 1, end: 6 }),
      error: ShapeError,
      message: "slice: expected 0 <= start <= end <= 5, got start 0 and end 6 on axis 1",
    }),
    refusal({
      name: "backwards",
      inputs: { x: f32(3, 5) },
      program: ({ x }) => slice(x, { axis: 1, start: 3, end: 2 }),
      error: ShapeError,
      message: "slice: expected 0 <= start <= end <= 5, got start 3 and end 2 on axis 1",
    }),
    refusal({
      name: "negative start",
      inputs: { x: f32(3, 5) },
      program: ({ x }) => slice(x, { axis: 0, start: -1 }),
      error: ShapeError,
      message: "slice: expected 0 <= start <= end <= 3, got start -1 and end 3 on axis 0",
    }),
    refusal({
      name: "axis",
      inputs: { x: f32(3, 5) },
      program: ({ x }) => slice(x, { axis: 2, start: 1 }),
      error: ShapeError,
      message: "slice: expected an axis from -2 to 1, got 2",
    }),
    refusal({
      name: "scalar",
      inputs: { x: f32() },
      program: ({ x }) => slice(x, { axis: 0, start: 0 }),
      error: ShapeError,
      message: "slice: expected an axis, but a scalar has none; got 0",
    }),
  ],
);
