import { add, DataError, DTypeError, f32, i32, ShapeError, type Tensor, takeRow } from "@sisa/core";
import { booleans, casesOf, floats, given, integers, otherFloats, refusal, testCase } from "../case.ts";
import { inOrder, pageTable, pooled, shortPages } from "./pages.ts";

const exact = { exact: true };

const lastRows = shortPages.lengths.map((length) => length - 1);

export const takeRowCases = casesOf(
  "takeRow",
  [
    testCase({
      name: "rows",
      inputs: { x: floats([3, 4, 2]), row: given(i32(3), [3, 0, 2]) },
      program: ({ x, row }) => takeRow(x, row),
      tolerance: exact,
      expected: ({ x }) => ({ value: [3, 4, 10].flatMap((row) => [...(x?.data.slice(2 * row, 2 * row + 2) ?? [])]) }),
    }),
    testCase({
      name: "elements",
      inputs: { x: floats([5, 7]), row: integers([5], { high: 7 }) },
      program: ({ x, row }) => takeRow(x, row),
      tolerance: exact,
    }),
    testCase({
      name: "two-axes",
      inputs: { x: floats([2, 5, 3, 4]), row: integers([2], { high: 5 }) },
      program: ({ x, row }) => takeRow(x, row),
      tolerance: exact,
    }),
    testCase({
      name: "twice",
      inputs: {
        x: floats([2, 5, 3]),
        y: floats([2, 5, 3]),
        first: given(i32(2), [1, 4]),
        second: given(i32(2), [1, 2]),
      },
      program: ({ x, y, first, second }) => add(add(takeRow(x, first), takeRow(x, second)), takeRow(y, first)),
      note: "gradients of several rows of equal shape do not share a buffer",
    }),
    testCase({
      name: "no-batch",
      inputs: { x: floats([0, 4, 2]), row: integers([0], { high: 4 }) },
      program: ({ x, row }) => takeRow(x, row),
      tolerance: exact,
    }),
    testCase({
      name: "pages",
      inputs: { x: pooled(shortPages, [2, 2]), row: given(i32(2), lastRows), pages: pageTable(shortPages) },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
      tolerance: exact,
      expected({ x }) {
        const { shape, data } = inOrder(x, shortPages);
        const starts = lastRows.map((row, sequence) => (sequence * (shape[1] ?? 0) + row) * 4);
        return { value: starts.flatMap((start) => [...data.subarray(start, start + 4)]) };
      },
      gradients: [],
    }),
    testCase({
      name: "pages-int32",
      inputs: { x: integers([4, 3], { high: 99 }), row: given(i32(2), [5, 0]), pages: given(i32(2, 2), [3, 1, 0, 2]) },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
    }),
    testCase({
      name: "pages-symbolic",
      inputs: {
        x: floats(["N", 4, 3]),
        row: given(i32("B"), [3, 0]),
        pages: given(i32("B", "M"), [2, 0, 1, 3]),
      },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
      sizes: [
        { N: 4, B: 2, M: 2 },
        { N: 3, B: 1, M: 1 },
      ],
      tolerance: exact,
      gradients: [],
    }),
    testCase({
      name: "past-the-last-page",
      inputs: { x: floats([4, 3]), row: given(i32(2), [0, 6]), pages: given(i32(2, 2), [3, 1, 0, 2]) },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
      fails: DataError,
    }),
    testCase({
      name: "no-such-page",
      inputs: { x: floats([4, 3]), row: given(i32(2), [0, 5]), pages: given(i32(2, 2), [3, 1, 0, 4]) },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
      fails: DataError,
    }),
    testCase({
      name: "page-below-the-first",
      inputs: { x: floats([4, 3]), row: given(i32(2), [0, 5]), pages: given(i32(2, 2), [3, 1, 0, -1]) },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
      fails: DataError,
    }),
    testCase({
      name: "int32",
      inputs: { x: integers([3, 4], { high: 99 }), row: integers([3], { high: 4 }) },
      program: ({ x, row }) => takeRow(x, row),
    }),
    testCase({
      name: "bool",
      inputs: { x: booleans([3, 4]), row: integers([3], { high: 4 }) },
      program: ({ x, row }) => takeRow(x, row),
    }),
    testCase({
      name: "symbolic",
      inputs: { x: floats(["B", "T", 3]), row: integers(["B"], { high: 1 }) },
      program: ({ x, row }) => takeRow(x, row),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 0, T: 2 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { x: floats([3, 4, 2], { dtype }), row: integers([3], { high: 4 }) },
        program: ({ x, row }) => takeRow(x, row),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "past-the-end",
      inputs: { x: floats([2, 4]), row: given(i32(2), [3, 4]) },
      program: ({ x, row }) => takeRow(x, row),
      fails: DataError,
    }),
  ],
  [
    refusal({
      name: "pages",
      inputs: { x: f32(5, 4, 2), row: i32(3), pages: i32(2, 4) },
      program: ({ x, row, pages }) => takeRow(x, row, pages),
      error: ShapeError,
      message: "takeRow: pages must be [B,M] = [3,M], got [2,4]",
    }),
    refusal({
      name: "rank",
      inputs: { x: f32(3), row: i32(3) },
      program: ({ x, row }) => takeRow(x, row),
      error: ShapeError,
      message: "takeRow: x must be [B,T,...], got [3]",
    }),
    refusal({
      name: "batch",
      inputs: { x: f32(3, 4), row: i32(2) },
      program: ({ x, row }) => takeRow(x, row),
      error: ShapeError,
      message: "takeRow: row must be [B] = [3], got [2]",
    }),
    refusal({
      name: "float row",
      inputs: { x: f32(3, 4), row: f32(3) },
      program: ({ x, row }) => takeRow(x, row as unknown as Tensor<"int">),
      error: DTypeError,
      message: "takeRow: row must be int, got float32[3]",
    }),
  ],
);
