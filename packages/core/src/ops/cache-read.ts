import { Dim } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { gather } from "./gather.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { reshape } from "./reshape.ts";
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
