import { DTypeError, f32, not, type Tensor, transpose } from "@sisa/core";
import { booleans, casesOf, refusal, testCase } from "../case.ts";

export const notCases = casesOf(
  "not",
  [
    testCase({
      name: "vector",
      inputs: { x: booleans([9]) },
      program: ({ x }) => not(x),
      expected: ({ x }) => ({ value: Array.from(x?.data ?? [], (value) => 1 - value) }),
    }),
    testCase({ name: "scalar", inputs: { x: booleans([]) }, program: ({ x }) => not(x) }),
    testCase({ name: "strided", inputs: { x: booleans([3, 5]) }, program: ({ x }) => not(transpose(x, [1, 0])) }),
    testCase({
      name: "symbolic",
      inputs: { x: booleans(["T", 2]) },
      program: ({ x }) => not(x),
      sizes: [{ T: 33 }, { T: 1 }, { T: 0 }],
    }),
  ],
  [
    refusal({
      name: "numbers",
      inputs: { x: f32(2) },
      program: ({ x }) => not(x as unknown as Tensor<"bool">),
      error: DTypeError,
      message: "not: x must be bool, got float32[2]",
    }),
  ],
);
