// Sequences whose rows lie in pages of a pool: how cases fill them, and the rows in order, for formulas.

import { i32, type NdArray } from "@sisa/core";
import { type FloatDType, floatSpec, given, type InputRecipe, type Values } from "../case.ts";

/** Which pages each sequence has, as many for each, and how many rows of them. */
export interface Layout {
  /** Pages of the pool. */
  readonly count: number;
  readonly pageSize: number;
  readonly pages: readonly (readonly number[])[];
  readonly lengths: readonly number[];
}

/** Pages in any order, the first of which all sequences but one have, and which others do not know of. */
export const longPages: Layout = {
  count: 9,
  pageSize: 64,
  pages: [
    [5, 2, 7],
    [5, 2, 4],
    [5, 8, 5],
    [1, 3, 3],
  ],
  lengths: [150, 192, 65, 9],
};

/** Those of few rows. */
export const shortPages: Layout = {
  count: 5,
  pageSize: 3,
  pages: [
    [4, 0, 2],
    [4, 3, 1],
  ],
  lengths: [7, 4],
};

interface Options {
  /** What rows hold that no sequence has. Default 100. */
  readonly unused?: number | undefined;
  readonly dtype?: FloatDType;
}

/** The input `pages`. */
export function pageTable({ pages }: Layout): InputRecipe<"int"> {
  return given(i32(pages.length, pages[0]?.length ?? 0), pages.flat());
}

/** Normal numbers [count, pageSize, ...rest]. */
export function pooled(layout: Layout, rest: readonly number[], options: Options = {}): InputRecipe<"float"> {
  const { count, pageSize, pages, lengths } = layout;
  const { unused = 100, dtype = "float32" } = options;
  const row = rest.reduce((a, b) => a * b, 1);
  const used = new Set(
    pages.flatMap((own, sequence) =>
      Array.from({ length: lengths[sequence] ?? 0 }, (_, position) => rowOf(own, pageSize, position)),
    ),
  );
  return {
    spec: floatSpec(dtype, [count, pageSize, ...rest]),
    fill: (stream, size) =>
      Float64Array.from(stream.normal(size), (value, index) => (used.has(Math.floor(index / row)) ? value : unused)),
  };
}

/** Sums of decay within each page, of steps between 0 and -0.5: [count, pageSize, heads]. */
export function pooledSums(layout: Layout, heads: number, options: Options = {}): InputRecipe<"float"> {
  const { spec, fill } = pooled(layout, [heads], { ...options, unused: Number.POSITIVE_INFINITY });
  const { unused = 100 } = options;
  return {
    spec,
    fill(stream, size) {
      const sums = new Float64Array(size);
      Array.from(fill(stream, size)).forEach((value, index) => {
        const before = index % (layout.pageSize * heads) < heads ? 0 : (sums[index - heads] ?? 0);
        sums[index] = value === Number.POSITIVE_INFINITY ? unused : before - 0.5 / (1 + value * value);
      });
      return sums;
    },
  };
}

function rowOf(pages: readonly number[], pageSize: number, position: number): number {
  return (pages[Math.floor(position / pageSize)] ?? 0) * pageSize + (position % pageSize);
}

/** The rows of each sequence in order, [B, M P, ...], and zeros for those that it does not have. */
export function inOrder(x: NdArray | undefined, { pageSize, pages, lengths }: Layout): NdArray {
  const rest = x?.shape.slice(2) ?? [];
  const row = rest.reduce((a, b) => a * b, 1);
  const capacity = (pages[0]?.length ?? 0) * pageSize;
  const data = new Float64Array(pages.length * capacity * row);
  pages.forEach((own, sequence) => {
    for (let position = 0; position < (lengths[sequence] ?? 0); position++) {
      const from = rowOf(own, pageSize, position) * row;
      data.set(x?.data.subarray(from, from + row) ?? [], (sequence * capacity + position) * row);
    }
  });
  return { shape: [pages.length, capacity, ...rest], data };
}

/** The inputs, those in pages in order. */
export function allInOrder(values: Values, names: readonly string[], layout: Layout): Values {
  return { ...values, ...Object.fromEntries(names.map((name) => [name, inOrder(values[name], layout)])) };
}
