import { DTypeError, f32, floorDiv, i32, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, given, integers, refusal, testCase } from "../case.ts";

const dividend = (shape: readonly (number | string)[]) => integers(shape, { low: -1000, high: 1000 });
const divisor = (shape: readonly (number | string)[]) => integers(shape, { low: 1, high: 9 });

export const floorDivCases = casesOf(
  "floorDiv",
  [
    testCase({
      name: "signs",
      inputs: { a: given(i32(8), [7, -7, 7, -7, 6, -6, 0, 1]), b: given(i32(8), [2, 2, -2, -2, 3, 3, 5, -9]) },
      program: ({ a, b }) => floorDiv(a, b),
      expected: () => ({ value: [3, -4, -4, 3, 2, -2, 0, -1] }),
    }),
    testCase({
      name: "large-numbers",
      inputs: {
        a: given(i32(6), [2147483647, -2147483648, 2147483646, 16777217, -16777217, -2147483647]),
        b: given(i32(6), [1, 1, 2147483647, 16777216, 16777216, 2]),
      },
      program: ({ a, b }) => floorDiv(a, b),
      expected: () => ({ value: [2147483647, -2147483648, 0, 1, -2, -1073741824] }),
      note: "numbers that float32 cannot hold",
    }),
    testCase({
      name: "broadcast",
      inputs: { a: dividend([5, 1]), b: divisor([7]) },
      program: ({ a, b }) => floorDiv(a, b),
    }),
    testCase({ name: "number", inputs: { a: dividend([40]) }, program: ({ a }) => floorDiv(a, 64) }),
    testCase({ name: "empty", inputs: { a: dividend([0]), b: divisor([1]) }, program: ({ a, b }) => floorDiv(a, b) }),
    testCase({
      name: "symbolic",
      inputs: { a: dividend(["T"]), b: divisor([]) },
      program: ({ a, b }) => floorDiv(a, b),
      sizes: [{ T: 9 }, { T: 1 }, { T: 0 }],
    }),
  ],
  [
    refusal({
      name: "floats",
      inputs: { a: f32(2), b: f32(2) },
      program: ({ a, b }) => floorDiv(a as unknown as Tensor<"int">, b as unknown as Tensor<"int">),
      error: DTypeError,
      message: "floorDiv: a must be int, got float32[2]",
    }),
    refusal({
      name: "shapes",
      inputs: { a: i32(2), b: i32(3) },
      program: ({ a, b }) => floorDiv(a, b),
      error: ShapeError,
      message: "floorDiv: shapes do not broadcast, got [2] and [3]",
    }),
  ],
);
