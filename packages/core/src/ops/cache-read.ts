import { Dim, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { floorDiv } from "./floor-div.ts";
import { gather } from "./gather.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { sub } from "./sub.ts";
import { takeRow } from "./take-row.ts";
import { where } from "./where.ts";

/**
 * The rows of sequences that lie in pages (see `cacheWrite`), in order, and zeros for those that a sequence does not have.
 *
 * @param cache  [N, P, ...]
 * @param pages  int32 [B, M], from 0 to N - 1
 * @param length int32 [B], rows of each sequence
 * @returns [B, M P, ...]
 * @throws ShapeError where a shape is not as told; DTypeError unless pages and length are int32
 */
export function cacheRead(cache: Tensor, pages: Tensor<"int">, length: Tensor<"int">): Tensor {
  const [B = Dim.of(0), M = Dim.of(0)] = pages.shape;
  const [, P = Dim.of(0), ...rest] = cache.shape;
  const rows = M.times(P);
  const ones = rest.map(() => 1);
  const isThere = less<"int">(reshape(iota(rows), [1, rows]), reshape(length, [B, 1]));
  return where(reshape(isThere, [B, rows, ...ones]), reshape(gather(cache, pages), [B, rows, ...rest]), 0);
}

/**
 * One row of each sequence: cache[b, row[b]], or that row of the sequence in pages (see `cacheWrite`).
 *
 * @param cache [B, C, ...], or [N, P, ...] in pages
 * @param row   int32 [B], from 0 to C - 1 (M P - 1 in pages)
 * @param pages int32 [B, M], from 0 to N - 1; default none
 * @returns [B, ...]
 * @throws ShapeError where a shape is not as told, or P is not bound; DTypeError unless row and pages are int32
 */
export function cacheRow<K extends Kind>(cache: Tensor<K>, row: Tensor<"int">, pages?: Tensor<"int">): Tensor<K> {
  if (!pages) return takeRow(cache, row);
  const [N = Dim.of(0), P = Dim.of(0), ...rest] = cache.shape;
  const size = P.value;
  if (size === undefined)
    throw new ShapeError(`cacheRow: expected pages of a fixed size, got ${shapeText(cache.shape)}`);
  const place = floorDiv(row, size);
  const first = mul<"int">(takeRow(pages, place), size);
  const index = add<"int">(first, sub<"int">(row, mul<"int">(place, size)));
  return gather(reshape(cache, [N.times(P), ...rest]), index);
}
