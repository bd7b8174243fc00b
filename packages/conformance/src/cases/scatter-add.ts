import { DataError, DTypeError, f32, i32, ShapeError, scatterAdd, type Tensor } from "@sisa/core";
import { casesOf, floats, given, integers, otherFloats, refusal, testCase } from "../case.ts";

export const scatterAddCases = casesOf(
  "scatterAdd",
  [
    testCase({
      name: "rows",
      inputs: { updates: floats([4, 2]), ids: given(i32(4), [2, 0, 2, 1]) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 4 }),
      expected: ({ updates }) => {
        const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = updates?.data ?? [];
        return { value: [c, d, g, h, a + e, b + f, 0, 0] };
      },
    }),
    testCase({
      name: "matrix-of-ids",
      inputs: { updates: floats([3, 5, 2, 2]), ids: integers([3, 5], { high: 4 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 4 }),
    }),
    testCase({
      name: "scalar-id",
      inputs: { updates: floats([3]), ids: given(i32(), [1]) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 2 }),
    }),
    testCase({
      name: "elements",
      inputs: { updates: floats([40]), ids: integers([40], { high: 6 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 6 }),
    }),
    testCase({
      name: "nothing",
      inputs: { updates: floats([0, 3]), ids: integers([0], { high: 5 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 5 }),
    }),
    testCase({
      name: "empty-rows",
      inputs: { updates: floats([4, 0]), ids: integers([4], { high: 5 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 5 }),
    }),
    testCase({
      name: "all-into-one",
      inputs: { updates: floats([513, 3]), ids: given(i32(513), [2]) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 3 }),
    }),
    testCase({
      name: "order",
      inputs: {
        updates: given(f32(6), [2 ** 24, 1, 1, -(2 ** 24), 1, 1]),
        ids: given(i32(6), [0, 0, 0, 0, 0, 0]),
      },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 1 }),
      tolerance: { absolute: 2, reason: "float32 loses up to two units of 2^24; the next case holds the order" },
      gradients: [],
      note: "sums that depend on the order",
    }),
    testCase({
      name: "deterministic",
      inputs: { updates: floats([2048, 8], { low: -1000, high: 1000 }), ids: integers([2048], { high: 16 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 16 }),
      repeat: 20,
      note: "2,048 updates of 16 rows give the same bits 20 times",
    }),
    testCase({
      name: "deterministic-wide",
      inputs: { updates: floats([2048, 64], { low: -1000, high: 1000 }), ids: integers([2048], { high: 16 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 16 }),
      repeat: 20,
      slow: true,
    }),
    testCase({
      name: "symbolic",
      inputs: { updates: floats(["B", "T", 3]), ids: integers(["B", "T"], { high: 7 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 7 }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 3, T: 0 },
      ],
    }),
    testCase({
      name: "symbolic-rows",
      inputs: { updates: floats(["T", 3]), ids: integers(["T"], { high: 1 }), like: floats(["R"]) },
      program: ({ updates, ids, like }) => ({ value: scatterAdd(updates, ids, { rows: "R" }), like }),
      sizes: [
        { T: 5, R: 4 },
        { T: 3, R: 1 },
      ],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { updates: floats([9, 3], { dtype }), ids: integers([9], { high: 4 }) },
        program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 4 }),
      }),
    ),
    testCase({
      name: "bfloat16-to-float32",
      inputs: { updates: floats([90, 3], { dtype: "bfloat16" }), ids: integers([90], { high: 2 }) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 2, dtype: "float32" }),
      note: "sums in a wider dtype than the updates",
    }),
    testCase({
      name: "past-the-end",
      inputs: { updates: floats([2, 3]), ids: given(i32(2), [0, 4]) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 4 }),
      fails: DataError,
    }),
  ],
  [
    refusal({
      name: "shapes",
      inputs: { updates: f32(3, 2), ids: i32(4) },
      program: ({ updates, ids }) => scatterAdd(updates, ids, { rows: 5 }),
      error: ShapeError,
      message: "scatterAdd: expected updates that begin with the shape of ids [4], got [3,2]",
    }),
    refusal({
      name: "integers",
      inputs: { updates: i32(4), ids: i32(4) },
      program: ({ updates, ids }) => scatterAdd(updates as unknown as Tensor, ids, { rows: 5 }),
      error: DTypeError,
      message: "scatterAdd: updates must be float, got int32[4]",
    }),
    refusal({
      name: "float ids",
      inputs: { updates: f32(4), ids: f32(4) },
      program: ({ updates, ids }) => scatterAdd(updates, ids as unknown as Tensor<"int">, { rows: 5 }),
      error: DTypeError,
      message: "scatterAdd: ids must be int, got float32[4]",
    }),
  ],
);
