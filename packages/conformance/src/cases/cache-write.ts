import { cacheWrite, DataError, DTypeError, f32, i32, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, floats, given, hostileFloats, integers, otherFloats, refusal, testCase } from "../case.ts";

const exact = { exact: true };

const pages = given(i32(2, 2), [3, 1, 0, 2]);

export const cacheWriteCases = casesOf(
  "cacheWrite",
  [
    testCase({
      name: "rows",
      inputs: { cache: floats([2, 4, 1]), update: floats([2, 2, 1]), start: given(i32(2), [1, 2]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      tolerance: exact,
      expected({ cache, update }) {
        const [a = 0, , , d = 0, e = 0, f = 0] = cache?.data ?? [];
        const [p = 0, q = 0, r = 0, s = 0] = update?.data ?? [];
        return { value: [a, p, q, d, e, f, r, s] };
      },
    }),
    testCase({
      name: "heads",
      inputs: { cache: floats([3, 9, 2, 4]), update: floats([3, 1, 2, 4]), start: given(i32(3), [0, 8, 5]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      tolerance: exact,
    }),
    testCase({
      name: "whole",
      inputs: { cache: floats([2, 4, 3]), update: floats([2, 4, 3]), start: given(i32(2), [0]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      tolerance: exact,
    }),
    testCase({
      name: "no-rows",
      inputs: { cache: floats([2, 4, 3]), update: floats([2, 0, 3]), start: given(i32(2), [4, 0]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      tolerance: exact,
    }),
    testCase({
      name: "one-column",
      inputs: { cache: floats([2, 5]), update: floats([2, 2]), start: given(i32(2), [3, 1]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      tolerance: exact,
    }),
    testCase({
      name: "int32",
      inputs: {
        cache: integers([2, 5], { high: 9 }),
        update: integers([2, 1], { high: 9 }),
        start: given(i32(2), [3, 1]),
      },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
    }),
    testCase({
      name: "pages",
      inputs: { cache: floats([4, 3, 1]), update: floats([2, 2, 1]), start: given(i32(2), [2, 3]), pages },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      tolerance: exact,
      expected({ cache, update }) {
        const value = Array.from(cache?.data ?? []);
        // Positions 2 and 3 of the first sequence, in pages 3 and 1; 3 and 4 of the second, in page 2.
        [11, 3, 6, 7].forEach((place, index) => {
          value[place] = update?.data[index] ?? Number.NaN;
        });
        return { value };
      },
    }),
    testCase({
      name: "pages-many-rows",
      inputs: {
        cache: floats([7, 64, 2, 4]),
        update: floats([2, 70, 2, 4]),
        start: given(i32(2), [63, 0]),
        pages: given(i32(2, 3), [5, 1, 6, 0, 2, 4]),
      },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      tolerance: exact,
      note: "a chunk of a prompt over page ends",
    }),
    testCase({
      name: "pages-int32",
      inputs: {
        cache: integers([4, 3], { high: 9 }),
        update: integers([2, 1], { high: 9 }),
        start: given(i32(2), [5, 0]),
        pages,
      },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
    }),
    testCase({
      name: "pages-no-rows",
      inputs: { cache: floats([4, 3]), update: floats([2, 0]), start: given(i32(2), [6, 0]), pages },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      tolerance: exact,
    }),
    testCase({
      name: "pages-symbolic",
      inputs: {
        cache: floats(["N", 4, 2]),
        update: floats(["B", "T", 2]),
        start: given(i32("B"), [3, 0]),
        pages: given(i32("B", "M"), [2, 0, 1, 3]),
      },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      sizes: [
        { N: 4, B: 2, T: 4, M: 2 },
        { N: 3, B: 1, T: 1, M: 3 },
      ],
      tolerance: exact,
    }),
    testCase({
      name: "symbolic",
      inputs: { cache: floats(["B", "C", 2]), update: floats(["B", "T", 2]), start: given(i32("B"), [0, 1]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      sizes: [
        { B: 2, C: 8, T: 5 },
        { B: 1, C: 1, T: 1 },
        { B: 3, C: 4, T: 0 },
      ],
      tolerance: exact,
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: { cache: floats([2, 4], { dtype }), update: floats([2, 1], { dtype }), start: given(i32(2), [3, 1]) },
        program: ({ cache, update, start }) => cacheWrite(cache, update, start),
        tolerance: exact,
      }),
    ),
    ...otherFloats.map((dtype) =>
      testCase({
        name: `pages-${dtype}`,
        inputs: {
          cache: floats([4, 3], { dtype }),
          update: floats([2, 2], { dtype }),
          start: given(i32(2), [2, 3]),
          pages,
        },
        program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
        tolerance: exact,
      }),
    ),
    testCase({
      name: "hostile",
      inputs: { cache: hostileFloats([1, 16]), update: hostileFloats([1, 7]), start: given(i32(1), [5]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      tolerance: exact,
      ieee: true,
    }),
    testCase({
      name: "past-the-end",
      inputs: { cache: floats([2, 4]), update: floats([2, 2]), start: given(i32(2), [2, 3]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      fails: DataError,
    }),
    testCase({
      name: "before-the-start",
      inputs: { cache: floats([2, 4]), update: floats([2, 2]), start: given(i32(2), [0, -1]) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      fails: DataError,
    }),
    testCase({
      name: "past-the-last-page",
      inputs: { cache: floats([4, 3]), update: floats([2, 2]), start: given(i32(2), [0, 5]), pages },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      fails: DataError,
    }),
    testCase({
      name: "no-such-page",
      inputs: {
        cache: floats([4, 3]),
        update: floats([2, 2]),
        start: given(i32(2), [0, 2]),
        pages: given(i32(2, 2), [0, 1, 2, 4]),
      },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      fails: DataError,
    }),
    testCase({
      name: "page-below-the-first",
      inputs: {
        cache: floats([4, 3]),
        update: floats([2, 2]),
        start: given(i32(2), [0, 2]),
        pages: given(i32(2, 2), [0, 1, -1, 2]),
      },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      fails: DataError,
    }),
  ],
  [
    refusal({
      name: "shapes",
      inputs: { cache: f32(2, 4, 3), update: f32(2, 1, 4), start: i32(2) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      error: ShapeError,
      message: "cacheWrite: expected a cache [B,C,...] and an update [B,T,...], got [2,4,3] and [2,1,4]",
    }),
    refusal({
      name: "pages",
      inputs: { cache: f32(4, 3), update: f32(2, 1), start: i32(2), pages: i32(3, 2) },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      error: ShapeError,
      message: "cacheWrite: pages must be [B,M] = [2,M], got [3,2]",
    }),
    refusal({
      name: "rows of pages",
      inputs: { cache: f32(4, 3, 2), update: f32(2, 1, 3), start: i32(2), pages: i32(2, 2) },
      program: ({ cache, update, start, pages }) => cacheWrite(cache, update, start, pages),
      error: ShapeError,
      message: "cacheWrite: expected a cache [N,P,...] and an update [B,T,...], got [4,3,2] and [2,1,3]",
    }),
    refusal({
      name: "start",
      inputs: { cache: f32(2, 4), update: f32(2, 1), start: i32() },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      error: ShapeError,
      message: "cacheWrite: start must be [B] = [2], got []",
    }),
    refusal({
      name: "float start",
      inputs: { cache: f32(2, 4), update: f32(2, 1), start: f32(2) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start as unknown as Tensor<"int">),
      error: DTypeError,
      message: "cacheWrite: start must be int, got float32[2]",
    }),
    refusal({
      name: "dtypes",
      inputs: { cache: f32(2, 4), update: i32(2, 1), start: i32(2) },
      program: ({ cache, update, start }) => cacheWrite(cache, update as unknown as Tensor, start),
      error: DTypeError,
      message: "cacheWrite: dtypes differ, got float32[2,4] and int32[2,1]; cast one of them",
    }),
    refusal({
      name: "too many rows",
      inputs: { cache: f32(2, 4), update: f32(2, 5), start: i32(2) },
      program: ({ cache, update, start }) => cacheWrite(cache, update, start),
      error: ShapeError,
      message: "cacheWrite: expected an update of at most 4 rows, got 5",
    }),
  ],
);
