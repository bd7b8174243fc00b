// Where the rows of sequences lie in a cache: a run of rows for each, or pages of a pool that all share.

import { type AnyTensor, sizesOf } from "@sisa/core";
import { packStruct, type StructArgument } from "../device/arguments.ts";
import type { Context, Value } from "../plan.ts";

/** Rows of a page, for kernels that read several keys at once; PAGE in kernels/pages.cuh. */
const cachePage = 64;

/** Whether pages are of another size than those kernels take. */
export function declinesPages(pages: AnyTensor | undefined, cache: AnyTensor): boolean {
  return pages !== undefined && sizesOf(cache.shape)[1] !== cachePage;
}

export interface Rows {
  /** Rows that a sequence can have. */
  readonly capacity: number;
  /** Rows of a page; without pages all that a sequence can have. */
  readonly size: number;
  /** The structure Pages. */
  readonly pages: StructArgument;
}

/** How kernels find the rows of sequences in a cache [B,C,...], or [N,P,...] by the input `pages`. */
export function rowsOfCache(context: Context, cache: Value): Rows {
  const table = context.optional("pages") ?? null;
  const [count = 0, size = 0] = cache.sizes;
  const perSequence = table?.sizes[1] ?? 1;
  const capacity = perSequence * size;
  const { name } = context.node.op;
  const [fault, number] = context.fault((page) => `${name}: expected pages from 0 to ${count - 1}, got ${page}`);
  return { capacity, size, pages: packStruct([table, perSequence, count, capacity, number, fault]) };
}
