import { Dim } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { chunk } from "./chunk.ts";
import { floorDiv } from "./floor-div.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { decayBlock } from "./ssm-prepare.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { where } from "./where.ts";

/**
 * By how much the running sum of log decay has fallen from position 0 to the last query: max g - min g, what form
 * `sdpa` clamps at twice `sdpaClamp`.
 *
 * @param gQuery     [B,T,H] sums within blocks, of the queries
 * @param gKey       [B,C,H] the same in the cache
 * @param queryStart int32 [B]
 * @returns [B,H], >= 0
 * @throws ShapeError, DTypeError where the inputs are not as told
 */
export function decaySpan(gQuery: Tensor, gKey: Tensor, queryStart: Tensor<"int">): Tensor {
  const [B = Dim.of(0), T = Dim.of(0), H = Dim.of(0)] = gQuery.shape;
  const blocks = chunk(gKey, { axis: 1, size: decayBlock });
  const count = blocks.shape[1] ?? Dim.of(0);
  const totals = reshape(slice(blocks, { axis: 2, start: decayBlock - 1 }), [B, count, H]);
  const rows = iotaEnd(T);
  const block = floorDiv(add<"int">(queryStart, rows), decayBlock);
  const earlier = less(reshape(iota(count), [1, count]), reshape(block, [B, 1]));
  const before = sum(where(reshape(earlier, [B, count, 1]), totals, 0), { axes: [1] });
  const last = reshape(slice(gQuery, { axis: 1, start: T.minus(1) }), [B, H]);
  const first = reshape(slice(gKey, { axis: 1, end: 1 }), [B, H]);
  return sub(first, add(before, last));
}

/** T - 1 as an int32 scalar, whatever T is. */
function iotaEnd(T: Dim): Tensor<"int"> {
  return reshape(slice(iota(T), { axis: 0, start: T.minus(1) }), []);
}
