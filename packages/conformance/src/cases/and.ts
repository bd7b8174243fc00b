import { and, bool, DTypeError, f32, ShapeError, type Tensor } from "@sisa/core";
import { booleans, casesOf, given, refusal, testCase } from "../case.ts";

export const andCases = casesOf(
  "and",
  [
    testCase({
      name: "truth-table",
      inputs: { a: given(bool(4), [0, 0, 1, 1]), b: given(bool(4), [0, 1, 0, 1]) },
      program: ({ a, b }) => and(a, b),
      expected: () => ({ value: [0, 0, 0, 1] }),
    }),
    testCase({
      name: "broadcast",
      inputs: { a: booleans([3, 1]), b: booleans([5]) },
      program: ({ a, b }) => and(a, b),
    }),
    testCase({ name: "empty", inputs: { a: booleans([0]), b: booleans([1]) }, program: ({ a, b }) => and(a, b) }),
    testCase({ name: "scalars", inputs: { a: booleans([]), b: booleans([]) }, program: ({ a, b }) => and(a, b) }),
    testCase({
      name: "symbolic",
      inputs: { a: booleans(["T", 2]), b: booleans(["T", 1]) },
      program: ({ a, b }) => and(a, b),
      sizes: [{ T: 65 }, { T: 1 }, { T: 0 }],
    }),
  ],
  [
    refusal({
      name: "numbers",
      inputs: { a: f32(2), b: bool(2) },
      program: ({ a, b }) => and(a as unknown as Tensor<"bool">, b),
      error: DTypeError,
      message: "and: a must be bool, got float32[2]",
    }),
    refusal({
      name: "shapes",
      inputs: { a: bool(2), b: bool(3) },
      program: ({ a, b }) => and(a, b),
      error: ShapeError,
      message: "and: shapes do not broadcast, got [2] and [3]",
    }),
  ],
);
