import { DataError, DTypeError, f32, gather, i32, ShapeError, type Tensor, transpose } from "@sisa/core";
import { booleans, casesOf, floats, given, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

export const gatherCases = casesOf(
  "gather",
  [
    testCase({
      name: "rows",
      inputs: { table: floats([5, 3]), ids: given(i32(4), [4, 0, 0, 2]) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
      expected: ({ table }) => ({
        value: [4, 0, 0, 2].flatMap((id) => [...(table?.data.slice(3 * id, 3 * id + 3) ?? [])]),
      }),
    }),
    testCase({
      name: "matrix-of-ids",
      inputs: { table: floats([7, 2, 3]), ids: integers([4, 5], { high: 7 }) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
    }),
    testCase({
      name: "scalar-id",
      inputs: { table: floats([5, 3]), ids: given(i32(), [3]) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
    }),
    testCase({
      name: "elements",
      inputs: { table: floats([9]), ids: integers([12], { high: 9 }) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
    }),
    testCase({
      name: "no-ids",
      inputs: { table: floats([5, 3]), ids: integers([0], { high: 5 }) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
    }),
    testCase({
      name: "strided-table",
      inputs: { table: floats([3, 8]), ids: integers([6], { high: 8 }) },
      program: ({ table, ids }) => gather(transpose(table, [1, 0]), ids),
      tolerance: exact,
    }),
    testCase({
      name: "embedding",
      inputs: { table: floats([257, 33]), ids: integers([3, 70], { high: 257 }) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
    }),
    testCase({
      name: "perf-embedding",
      inputs: { table: floats([8192, 512]), ids: integers([32_768], { high: 8192 }) },
      program: ({ table, ids }) => gather(table, ids),
      perf: true,
    }),
    testCase({
      name: "int32",
      inputs: { table: integers([5], { high: 100 }), ids: integers([3], { high: 5 }) },
      program: ({ table, ids }) => gather(table, ids),
    }),
    testCase({
      name: "bool",
      inputs: { table: booleans([5, 2]), ids: integers([3], { high: 5 }) },
      program: ({ table, ids }) => gather(table, ids),
    }),
    testCase({
      name: "symbolic",
      inputs: { table: floats([11, 3]), ids: integers(["B", "T"], { high: 11 }) },
      program: ({ table, ids }) => gather(table, ids),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { table: floats([5, 3], { dtype }), ids: integers([7], { high: 5 }) },
        program: ({ table, ids }) => gather(table, ids),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { table: hostileFloats([16]), ids: given(i32(16), [15, 0, 14, 1, 13, 2, 12, 3]) },
      program: ({ table, ids }) => gather(table, ids),
      tolerance: exact,
      ieee: true,
    }),
    testCase({
      name: "past-the-end",
      inputs: { table: floats([5, 3]), ids: given(i32(2), [0, 5]) },
      program: ({ table, ids }) => gather(table, ids),
      fails: DataError,
    }),
    testCase({
      name: "negative",
      inputs: { table: floats([5, 3]), ids: given(i32(2), [0, -1]) },
      program: ({ table, ids }) => gather(table, ids),
      fails: DataError,
    }),
  ],
  [
    refusal({
      name: "float ids",
      inputs: { table: f32(5, 3), ids: f32(2) },
      program: ({ table, ids }) => gather(table, ids as unknown as Tensor<"int">),
      error: DTypeError,
      message: "gather: ids must be int, got float32[2]",
    }),
    refusal({
      name: "scalar table",
      inputs: { table: f32(), ids: i32(2) },
      program: ({ table, ids }) => gather(table, ids),
      error: ShapeError,
      message: "gather: expected a table with at least one axis, got a scalar",
    }),
  ],
);
