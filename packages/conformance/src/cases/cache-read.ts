import { cacheRead, cacheRow, f32, i32, ShapeError } from "@sisa/core";
import { casesOf, floats, given, refusal, testCase } from "../case.ts";
import { inOrder, pageTable, pooled, shortPages } from "./pages.ts";

const exact = { exact: true };

const last = shortPages.lengths.map((length) => length - 1);

/** `cacheRead` is a function, spelt with other operations. */
export const cacheReadCases = casesOf("cacheRead", [
  testCase({
    name: "pages",
    inputs: { cache: pooled(shortPages, [2]), pages: pageTable(shortPages), length: given(i32(2), shortPages.lengths) },
    program: ({ cache, pages, length }) => cacheRead(cache, pages, length),
    tolerance: exact,
    expected: ({ cache }) => ({ value: inOrder(cache, shortPages).data }),
    gradients: [],
  }),
  testCase({
    name: "unused-rows",
    inputs: {
      cache: pooled(shortPages, [], { unused: Number.NaN }),
      pages: pageTable(shortPages),
      length: given(i32(2), shortPages.lengths),
    },
    program: ({ cache, pages, length }) => cacheRead(cache, pages, length),
    tolerance: exact,
    expected: ({ cache }) => ({ value: inOrder(cache, shortPages).data }),
    ieee: true,
  }),
]);

/** `cacheRow` is a function, spelt with other operations. */
export const cacheRowCases = casesOf(
  "cacheRow",
  [
    testCase({
      name: "pages",
      inputs: { cache: pooled(shortPages, [2, 2]), pages: pageTable(shortPages), row: given(i32(2), last) },
      program: ({ cache, pages, row }) => cacheRow(cache, row, pages),
      tolerance: exact,
      expected({ cache }) {
        const { shape, data } = inOrder(cache, shortPages);
        const [, capacity = 0] = shape;
        const start = (sequence: number) => (sequence * capacity + (last[sequence] ?? 0)) * 4;
        return { value: last.flatMap((_, sequence) => [...data.subarray(start(sequence), start(sequence) + 4)]) };
      },
      gradients: [],
    }),
    testCase({
      name: "one-run",
      inputs: { cache: floats([2, 3, 2]), row: given(i32(2), [2, 0]) },
      program: ({ cache, row }) => cacheRow(cache, row),
      tolerance: exact,
      gradients: [],
    }),
  ],
  [
    refusal({
      name: "open page size",
      inputs: { cache: f32(5, "P"), row: i32(2), pages: i32(2, 3) },
      program: ({ cache, row, pages }) => cacheRow(cache, row, pages),
      error: ShapeError,
      message: "cacheRow: expected pages of a fixed size, got [5,P]",
    }),
  ],
);
