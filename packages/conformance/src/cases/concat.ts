import { concat, DTypeError, f32, i32, ShapeError, type Tensor } from "@sisa/core";
import { booleans, casesOf, floats, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const concatCases = casesOf(
  "concat",
  [
    testCase({
      name: "vectors",
      inputs: { a: floats([3]), b: floats([4]) },
      program: ({ a, b }) => concat([a, b], { axis: 0 }),
      tolerance: exact,
      expected: ({ a, b }) => ({ value: [...(a?.data ?? []), ...(b?.data ?? [])] }),
    }),
    testCase({
      name: "inner-axis",
      inputs: { a: floats([2, 3, 4]), b: floats([2, 1, 4]), c: floats([2, 5, 4]) },
      program: ({ a, b, c }) => concat([a, b, c], { axis: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "last-axis",
      inputs: { a: floats([2, 3]), b: floats([2, 1]) },
      program: ({ a, b }) => concat([a, b], { axis: -1 }),
      tolerance: exact,
    }),
    testCase({
      name: "with-itself",
      inputs: { a: floats([2, 3]) },
      program: ({ a }) => concat([a, a, a], { axis: 0 }),
      tolerance: exact,
      note: "gradients of all copies add up",
    }),
    testCase({
      name: "eleven",
      inputs: Object.fromEntries(Array.from({ length: 11 }, (_, index) => [`x${index}`, floats([index % 3, 2])])),
      program: (inputs) => concat(Object.values(inputs) as Tensor[], { axis: 0 }),
      tolerance: exact,
      note: "more inputs than there are digits: their order is by number, not by text",
    }),
    testCase({
      name: "empty-part",
      inputs: { a: floats([2, 0]), b: floats([2, 3]) },
      program: ({ a, b }) => concat([a, b], { axis: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "all-empty",
      inputs: { a: floats([0, 2]), b: floats([0, 3]) },
      program: ({ a, b }) => concat([a, b], { axis: 1 }),
      tolerance: exact,
    }),
    testCase({
      name: "int32",
      inputs: { a: integers([3], { high: 9 }), b: integers([2], { high: 9 }) },
      program: ({ a, b }) => concat([a, b], { axis: 0 }),
    }),
    testCase({
      name: "bool",
      inputs: { a: booleans([3]), b: booleans([2]) },
      program: ({ a, b }) => concat([a, b], { axis: 0 }),
    }),
    testCase({
      name: "symbolic",
      inputs: { a: floats(["B", "P", 2]), b: floats(["B", "T", 2]) },
      program: ({ a, b }) => concat([a, b], { axis: 1 }),
      sizes: [
        { B: 2, P: 3, T: 5 },
        { B: 1, P: 0, T: 1 },
        { B: 1, P: 0, T: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { a: floats([2, 3], { dtype }), b: floats([1, 3], { dtype }) },
        program: ({ a, b }) => concat([a, b], { axis: 0 }),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { a: hostileFloats([16]), b: hostileFloats([3]) },
      program: ({ a, b }) => concat([a, b], { axis: 0 }),
      tolerance: exact,
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "none",
      inputs: {},
      program: () => concat([], { axis: 0 }),
      error: ShapeError,
      message: "concat: expected at least one tensor, got none",
    }),
    refusal({
      name: "shapes",
      inputs: { a: f32(2, 3), b: f32(2, 4) },
      program: ({ a, b }) => concat([a, b], { axis: 0 }),
      error: ShapeError,
      message: "concat: expected equal shapes except on axis 0, got [2,3] and [2,4]",
    }),
    refusal({
      name: "ranks",
      inputs: { a: f32(2, 3), b: f32(2) },
      program: ({ a, b }) => concat([a, b], { axis: 1 }),
      error: ShapeError,
      message: "concat: expected equal shapes except on axis 1, got [2,3] and [2]",
    }),
    refusal({
      name: "dtypes",
      inputs: { a: f32(2), b: i32(2) },
      program: ({ a, b }) => concat([a, b as unknown as Tensor], { axis: 0 }),
      error: DTypeError,
      message: "concat: dtypes differ, got float32[2] and int32[2]; cast one of them",
    }),
    refusal({
      name: "axis",
      inputs: { a: f32(2), b: f32(2) },
      program: ({ a, b }) => concat([a, b], { axis: 1 }),
      error: ShapeError,
      message: "concat: expected an axis from -1 to 0, got 1",
    }),
  ],
);
