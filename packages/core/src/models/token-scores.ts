// What a model says of given tokens: their log-probabilities, and the tokens it would have said itself.
import { elementsOf } from "../dim.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { argmax } from "../ops/argmax.ts";
import { concat } from "../ops/concat.ts";
import { gather } from "../ops/gather.ts";
import { less } from "../ops/less.ts";
import { logSumExp } from "../ops/log-sum-exp.ts";
import { matmul } from "../ops/matmul.ts";
import { max } from "../ops/max.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { slice } from "../ops/slice.ts";
import { sub } from "../ops/sub.ts";
import { sum } from "../ops/sum.ts";
import { where } from "../ops/where.ts";

/** Rows of the embedding whose logits are held at a time. */
const chunk = 8192;

/**
 * Scores of tokens at some places, without ever holding all logits of a place.
 *
 * @param hidden  [B,T,M] final hidden states
 * @param weight  [V,M] of the head
 * @param places  int32 [R], places in the rows one after another, from 0 to B*T - 1
 * @param targets int32 [R], the token to score at each place
 * @returns `logProbability` [R], natural logarithms; `predicted` int32 [R], the most likely token, the first of equal ones
 */
export function tokenScores({
  hidden,
  weight,
  places,
  targets,
}: {
  readonly hidden: Tensor;
  readonly weight: Tensor;
  readonly places: Tensor<"int">;
  readonly targets: Tensor<"int">;
}): { readonly logProbability: Tensor; readonly predicted: Tensor<"int"> } {
  const width = hidden.shape.at(-1) ?? 0;
  const rows = elementsOf(places.shape);
  const x = gather(reshape(hidden, [elementsOf(hidden.shape.slice(0, -1)), width]), places);
  const vocabulary = weight.shape[0]?.value ?? 0;
  const starts = Array.from({ length: Math.ceil(vocabulary / chunk) }, (_, index) => index * chunk);
  const parts = starts.map((start) => {
    const end = Math.min(start + chunk, vocabulary);
    const logits = matmul(x, slice(weight, { axis: 0, start, end }), { transposeB: true });
    return {
      total: logSumExp(logits),
      highest: max(logits, { axes: [1] }),
      at: add<"int">(argmax(logits), start),
    };
  });
  const total = logSumExp(
    concat(
      parts.map((part) => part.total),
      { axis: 1 },
    ),
  );
  const best = parts.reduce((a, b) => {
    const later = less(a.highest, b.highest);
    return { ...b, highest: where(later, b.highest, a.highest), at: where<"int">(later, b.at, a.at) };
  });
  const chosen = sum(mul(x, gather(weight, targets)), { axes: [1] });
  return { logProbability: sub(chosen, reshape(total, [rows])), predicted: best.at };
}
