import { add, constant, f32, mul, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floats, otherFloats, refusal, testCase } from "../case.ts";

export const constantCases = casesOf(
  "constant",
  [
    testCase({
      name: "output",
      inputs: {},
      program: () => constant(new Float32Array([1.5, -2, 0.1]), "float32", [3]),
      tolerance: { exact: true },
      expected: () => ({ value: [1.5, -2, Math.fround(0.1)] }),
      note: "a graph without inputs, whose output is a constant",
    }),
    testCase({
      name: "scalar",
      inputs: { x: floats([3]) },
      program: ({ x }) => mul(x, constant(0.1)),
    }),
    testCase({
      name: "matrix",
      inputs: { x: floats([3]) },
      program: ({ x }) => add(x, constant(new Float32Array([1, 2, 3, 4, 5, 6]), "float32", [2, 3])),
    }),
    testCase({ name: "empty", inputs: {}, program: () => constant(new Float32Array(0), "float32", [0, 3]) }),
    testCase({
      name: "int32",
      inputs: {},
      program: () => constant(new Int32Array([2147483647, -2147483648, 0, -1]), "int32"),
    }),
    testCase({ name: "bool", inputs: {}, program: () => constant(new Uint8Array([1, 0, 1]), "bool") }),
    testCase({
      name: "two-outputs",
      inputs: {},
      program: () => {
        const x = constant(new Float32Array([1, 2]), "float32");
        return { first: x, second: x };
      },
      note: "two outputs are one tensor",
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([3], { dtype }) },
        program: ({ x }) => add(mul(x, 0.1), constant(new Float64Array([0.1, 1e3, -1 / 3]), dtype) as Tensor),
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { x: floats([4]) },
      program: ({ x }) =>
        add(
          x,
          constant(new Float32Array([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0]), "float32"),
        ),
      ieee: true,
    }),
  ],
  [
    refusal({
      name: "count",
      inputs: { x: f32(4) },
      program: ({ x }) => add(x, constant(new Float32Array(3), "float32", [4])),
      error: ShapeError,
      message: "constant: expected 4 elements for float32[4], got 3",
    }),
  ],
);
