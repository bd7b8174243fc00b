import { chunk, dim, f32, ShapeError, unchunk } from "@sisa/core";
import { booleans, casesOf, floats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const unchunkCases = casesOf(
  "unchunk",
  [
    testCase({
      name: "with-rest",
      inputs: { x: floats([3, 4]) },
      program: ({ x }) => unchunk(x, { axis: 0, length: 10 }),
      tolerance: exact,
      expected: ({ x }) => ({ value: x?.data.slice(0, 10) ?? [] }),
    }),
    testCase({
      name: "even",
      inputs: { x: floats([2, 3, 4]) },
      program: ({ x }) => unchunk(x, { axis: 1, length: 12 }),
      tolerance: exact,
    }),
    testCase({
      name: "inner-axis",
      inputs: { x: floats([2, 3, 4, 5]) },
      program: ({ x }) => unchunk(x, { axis: 1, length: 9 }),
      tolerance: exact,
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([2, 0, 4]) },
      program: ({ x }) => unchunk(x, { axis: 1, length: 0 }),
      tolerance: exact,
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([2, 3], { high: 9 }) },
      program: ({ x }) => unchunk(x, { axis: 0, length: 5 }),
    }),
    testCase({ name: "bool", inputs: { x: booleans([2, 3]) }, program: ({ x }) => unchunk(x, { axis: 0, length: 4 }) }),
    testCase({
      name: "after-chunk",
      inputs: { x: floats(["B", "T", 2]) },
      program: ({ x }) => unchunk(chunk(x, { axis: 1, size: 4 }), { axis: 1, length: "T" }),
      sizes: [
        { B: 2, T: 9 },
        { B: 1, T: 8 },
        { B: 1, T: 1 },
        { B: 1, T: 0 },
      ],
      tolerance: exact,
      expected: ({ x }) => ({ value: x?.data ?? [] }),
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([2, 3], { dtype }) },
        program: ({ x }) => unchunk(x, { axis: 0, length: 5 }),
        tolerance: exact,
      }),
    ),
  ],
  [
    refusal({
      name: "length",
      inputs: { x: f32(3, 4) },
      program: ({ x }) => unchunk(x, { axis: 0, length: 8 }),
      error: ShapeError,
      message: "unchunk: expected a length with ceilDiv(length, 4) = 3, got 8 for [3,4]",
    }),
    refusal({
      name: "symbolic length",
      inputs: { x: f32(3, 4) },
      program: ({ x }) => unchunk(x, { axis: 0, length: dim("T") }),
      error: ShapeError,
      message: "unchunk: expected a length with ceilDiv(length, 4) = 3, got T for [3,4]",
    }),
    refusal({
      name: "one axis",
      inputs: { x: f32(3) },
      program: ({ x }) => unchunk(x, { axis: 0, length: 3 }),
      error: ShapeError,
      message: "unchunk: expected chunks of a fixed size >= 1 on axis 1, got [3]",
    }),
    refusal({
      name: "symbolic size",
      inputs: { x: f32(3, "T") },
      program: ({ x }) => unchunk(x, { axis: 0, length: 3 }),
      error: ShapeError,
      message: "unchunk: expected chunks of a fixed size >= 1 on axis 1, got [3,T]",
    }),
    refusal({
      name: "empty chunks",
      inputs: { x: f32(3, 0) },
      program: ({ x }) => unchunk(x, { axis: 0, length: 0 }),
      error: ShapeError,
      message: "unchunk: expected chunks of a fixed size >= 1 on axis 1, got [3,0]",
    }),
  ],
);
