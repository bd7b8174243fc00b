import { chunk, f32, ShapeError } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const chunkCases = casesOf(
  "chunk",
  [
    testCase({
      name: "with-rest",
      inputs: { x: floats([7]) },
      program: ({ x }) => chunk(x, { axis: 0, size: 3 }),
      tolerance: exact,
      expected: ({ x }) => ({ value: [...(x?.data ?? []), 0, 0] }),
    }),
    testCase({
      name: "even",
      inputs: { x: floats([2, 6]) },
      program: ({ x }) => chunk(x, { axis: 1, size: 3 }),
      tolerance: exact,
    }),
    testCase({
      name: "inner-axis",
      inputs: { x: floats([2, 5, 3]) },
      program: ({ x }) => chunk(x, { axis: 1, size: 4 }),
      tolerance: exact,
    }),
    testCase({
      name: "larger-than-axis",
      inputs: { x: floats([2, 5]) },
      program: ({ x }) => chunk(x, { axis: -1, size: 64 }),
      tolerance: exact,
    }),
    testCase({
      name: "of-one",
      inputs: { x: floats([3]) },
      program: ({ x }) => chunk(x, { axis: 0, size: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "empty",
      inputs: { x: floats([2, 0]) },
      program: ({ x }) => chunk(x, { axis: 1, size: 4 }),
      tolerance: exact,
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([5], { low: 1, high: 9 }) },
      program: ({ x }) => chunk(x, { axis: 0, size: 2 }),
    }),
    testCase({ name: "bool", inputs: { x: booleans([5]) }, program: ({ x }) => chunk(x, { axis: 0, size: 2 }) }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 2]) },
      program: ({ x }) => chunk(x, { axis: 1, size: 4 }),
      sizes: [
        { B: 2, T: 9 },
        { B: 1, T: 8 },
        { B: 1, T: 1 },
        { B: 1, T: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([5], { dtype }) },
        program: ({ x }) => chunk(x, { axis: 0, size: 2 }),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: hostileFloats([15]) },
      program: ({ x }) => chunk(x, { axis: 0, size: 4 }),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "size",
      inputs: { x: f32(5) },
      program: ({ x }) => chunk(x, { axis: 0, size: 0 }),
      error: ShapeError,
      message: "chunk: expected a chunk size >= 1, got 0",
    }),
    refusal({
      name: "axis",
      inputs: { x: f32(5) },
      program: ({ x }) => chunk(x, { axis: 1, size: 2 }),
      error: ShapeError,
      message: "chunk: expected an axis from -1 to 0, got 1",
    }),
  ],
);
