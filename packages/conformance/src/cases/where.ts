import { DTypeError, f32, i32, ShapeError, type Tensor, where } from "@sisa/core";
import {
  booleans,
  casesOf,
  type FloatDType,
  floatSpec,
  floats,
  given,
  integers,
  otherFloats,
  refusal,
  testCase,
} from "../case.ts";

const exact = { exact: true };

export const whereCases = casesOf(
  "where",
  [
    testCase({
      name: "vector",
      inputs: { c: booleans([33]), a: floats([33]), b: floats([33]) },
      program: ({ c, a, b }) => where(c, a, b),
      tolerance: exact,
      expected: ({ c, a, b }) => ({ value: Array.from(c?.data ?? [], (yes, i) => (yes ? a : b)?.data[i] ?? 0) }),
    }),
    testCase({
      name: "broadcast-all",
      inputs: { c: booleans([4, 1, 1]), a: floats([3, 1]), b: floats([5]) },
      program: ({ c, a, b }) => where(c, a, b),
      tolerance: exact,
    }),
    testCase({
      name: "broadcast-condition",
      inputs: { c: booleans([5]), a: floats([4, 5]), b: floats([]) },
      program: ({ c, a, b }) => where(c, a, b),
      tolerance: exact,
    }),
    testCase({
      name: "numbers",
      inputs: { c: booleans([2, 6]), a: floats([6]) },
      program: ({ c, a }) => ({ left: where(c, a, 0), right: where(c, -2, a) }),
      tolerance: exact,
    }),
    testCase({
      name: "masked",
      inputs: { c: given({ dtype: "bool", shape: [] }, [0]), a: floats([4]) },
      program: ({ c, a }) => where(c, Number.NEGATIVE_INFINITY, a),
      tolerance: exact,
      note: "one condition for all",
    }),
    testCase({
      name: "int32",
      inputs: { c: booleans([7]), a: integers([7], { high: 9 }), b: integers([1], { high: 9 }) },
      program: ({ c, a, b }) => where(c, a, b),
    }),
    testCase({
      name: "bool",
      inputs: { c: booleans([7]), a: booleans([7]), b: booleans([1]) },
      program: ({ c, a, b }) => where(c, a, b),
    }),
    testCase({
      name: "empty",
      inputs: { c: booleans([1]), a: floats([0, 3]), b: floats([3]) },
      program: ({ c, a, b }) => where(c, a, b),
      tolerance: exact,
    }),
    testCase({
      name: "symbolic",
      inputs: { c: booleans(["T"]), a: floats(["B", "T"]), b: floats(["B", 1]) },
      program: ({ c, a, b }) => where(c, a, b),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype: FloatDType) =>
      testCase({
        name: dtype,
        inputs: { c: booleans([3, 4]), a: floats([3, 4], { dtype }), b: floats([4], { dtype }) },
        program: ({ c, a, b }) => where(c, a, b),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: {
        c: given({ dtype: "bool", shape: f32(8).shape }, [1, 0]),
        a: given(floatSpec("float32", [8]), [
          1,
          Number.NaN,
          -1,
          Number.POSITIVE_INFINITY,
          Number.NaN,
          2,
          3,
          Number.NaN,
        ]),
        b: given(floatSpec("float32", [8]), [Number.NaN, 2, Number.POSITIVE_INFINITY, -1, 1, Number.NaN, 1, 5]),
      },
      program: ({ c, a, b }) => where(c, a, b),
      tolerance: exact,
      ieee: true,
      gradients: ["a", "b"],
      differences: "none",
      note: "what is not chosen has no influence, on gradients neither; the sign of a zero is not promised",
    }),
  ],
  [
    refusal({
      name: "condition",
      inputs: { c: f32(2), a: f32(2) },
      program: ({ c, a }) => where(c as unknown as Tensor<"bool">, a, 0),
      error: DTypeError,
      message: "where: condition must be bool, got float32[2]",
    }),
    refusal({
      name: "dtypes",
      inputs: { c: { dtype: "bool", shape: [] }, a: f32(2), b: i32(2) },
      program: ({ c, a, b }) => where(c, a, b as unknown as Tensor),
      error: DTypeError,
      message: "where: dtypes differ, got float32[2] and int32[2]; cast one of them",
    }),
    refusal({
      name: "shapes",
      inputs: { c: { dtype: "bool", shape: f32(4).shape }, a: f32(3), b: f32(3) },
      program: ({ c, a, b }) => where(c, a, b),
      error: ShapeError,
      message: "where: shapes do not broadcast, got [4] and [3]",
    }),
  ],
);
