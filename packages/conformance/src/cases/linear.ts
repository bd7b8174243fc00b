import { f32, linear, ShapeError } from "@sisa/core";
import { casesOf, floats, refusal, testCase } from "../case.ts";

/** `linear` is a function, spelt with matmul and add. */
export const linearCases = casesOf(
  "linear",
  [
    testCase({
      name: "with-bias",
      inputs: { x: floats(["B", "T", 4]), weight: floats([3, 4]), bias: floats([3]) },
      program: ({ x, weight, bias }) => linear(x, weight, bias),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 1, T: 0 },
      ],
    }),
    testCase({
      name: "without-bias",
      inputs: { x: floats([7, 4]), weight: floats([3, 4]) },
      program: ({ x, weight }) => linear(x, weight),
    }),
  ],
  [
    refusal({
      name: "width",
      inputs: { x: f32(2, 4), weight: f32(4, 3) },
      program: ({ x, weight }) => linear(x, weight),
      error: ShapeError,
      message: "matmul: inner sizes differ, expected [.., 4] x [4, ..], got [2,4] x [4,3], b transposed",
    }),
  ],
);
