import { Dim } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectSameDType, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import {
  type AttentionBackwardInputs,
  attentionBackwardOp,
  attentionOp,
  checkPositions,
  keyAxes,
  keyCount,
  scaleOf,
  swapHeads,
  withoutPages,
} from "./attention.ts";
import { cast, wide, wideDType } from "./cast.ts";
import { chunk } from "./chunk.ts";
import { cumulativeSum } from "./cumulative-sum.ts";
import { exp } from "./exp.ts";
import { floorDiv } from "./floor-div.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { matmul } from "./matmul.ts";
import { minimum } from "./minimum.ts";
import { mul } from "./mul.ts";
import { pad } from "./pad.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { decayBlock } from "./ssm-prepare.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { transpose } from "./transpose.ts";
import { unchunk } from "./unchunk.ts";
import { where } from "./where.ts";

/** What attention with a decaying importance reads, rotated and with the decays summed up. */
export interface DecayAttentionInputs {
  readonly [name: string]: Tensor | Tensor<"int"> | undefined;
  /** [B,T,H,D] queries, positional rotation applied */
  readonly q: Tensor;
  /** [B,C,H,D] keys, positional rotation applied */
  readonly k: Tensor;
  /** [B,C,H,E] values */
  readonly v: Tensor;
  /** [B,T,H,S] rotated read vectors of the queries */
  readonly cRotated: Tensor;
  /** [B,C,H,S] rotated write vectors of the keys */
  readonly bRotated: Tensor;
  /** [B,T,H] sum of log decay within the query's block of 64 positions */
  readonly gQuery: Tensor;
  /** [B,C,H] the same for each key; its value at a block's last position is the block's total */
  readonly gKey: Tensor;
  /** [H] weight of the importance term, > 0 */
  readonly lambda: Tensor;
  /** int32 [B] position of the first query; default zeros */
  readonly queryStart?: Tensor<"int"> | undefined;
  /** int32 [B] how many keys count; default all */
  readonly keyLength?: Tensor<"int"> | undefined;
  /** int32 [B,M] where the keys lie, of all that has C: [N,P,...] pages, as in AttentionInputs. Default: it is [B,C,...] */
  readonly pages?: Tensor<"int"> | undefined;
}

interface DecayAttentionAttributes {
  readonly [name: string]: unknown;
  readonly scale: number;
}

type DecayAttentionOutputs = { value: Tensor; logSumExp: Tensor };

/** exp(g_i - g_j) for global sums g, [B,H,T,C]; see `decaySums`. */
export function decayFactors(gQuery: Tensor, gKey: Tensor, queryStart: Tensor<"int"> | undefined): Tensor {
  return exp(decaySums(gQuery, gKey, queryStart));
}

/**
 * g_i - g_j for global sums g, from sums within blocks: [B,H,T,C]. Block I of query i comes after block J of key j:
 * the decay is what is left of J after j, plus the totals of the blocks between, plus I up to i. All are sums of at most
 * a block, none is a difference of long ones. Keys that come after the query get at most 0.
 */
export function decaySums(gQuery: Tensor, gKey: Tensor, queryStart: Tensor<"int"> | undefined): Tensor {
  const [B = Dim.of(0), T = Dim.of(0), H = Dim.of(0)] = gQuery.shape;
  const C = gKey.shape[1] ?? Dim.of(0);
  const keys = chunk(transpose(gKey, [0, 2, 1]), { axis: 2, size: decayBlock });
  const blocks = keys.shape[2] ?? Dim.of(0);
  const totals = reshape(slice(keys, { axis: 3, start: decayBlock - 1 }), [B, H, 1, blocks]);

  const row = reshape(iota(T), [T, 1]);
  const position = queryStart ? add(row, reshape(queryStart, [B, 1, 1, 1])) : row;
  const earlier = less(iota(blocks), floorDiv(position, decayBlock));
  const fromBlock = cumulativeSum(where(earlier, totals, 0), { axis: -1, reverse: true });

  const query = add(reshape(transpose(gQuery, [0, 2, 1]), [B, H, T, 1]), fromBlock);
  const rows = query.shape.slice(0, 3);
  const difference = sub(reshape(query, [...rows, blocks, 1]), reshape(keys, [B, H, 1, blocks, decayBlock]));
  return minimum(unchunk(difference, { axis: 3, length: C }), 0);
}

/** lambda * decay * (c . b), the importance term of the score: [B,H,T,C]. */
export function importanceTerm({ cRotated, bRotated, lambda }: DecayAttentionInputs, decay: Tensor): Tensor {
  const dtype = wideDType(cRotated);
  const product = matmul(swapHeads(cRotated), swapHeads(bRotated), { transposeB: true, dtype });
  return mul(mul(product, decay), perHead(wide(lambda)));
}

function perHead(lambda: Tensor): Tensor {
  return reshape(lambda, [...lambda.shape, 1, 1]);
}

/** @throws ShapeError, DTypeError */
export function checkDecayAttention(inputs: DecayAttentionInputs): void {
  const sizes = expectShape("q", inputs.q, ["B", "T", "H", "D"]);
  const rows = keyAxes(inputs, sizes);
  const keys = expectShape("k", inputs.k, [...rows, "H", "D"], sizes);
  expectShape("v", inputs.v, [...rows, "H", "E"], keys);
  const states = expectShape("cRotated", inputs.cRotated, ["B", "T", "H", "S"], keys);
  expectShape("bRotated", inputs.bRotated, [...rows, "H", "S"], states);
  expectShape("gQuery", inputs.gQuery, ["B", "T", "H"], keys);
  expectShape("gKey", inputs.gKey, [...rows, "H"], keys);
  expectShape("lambda", inputs.lambda, ["H"], keys);
  checkPositions(inputs, sizes);
  const { q, k, v, cRotated, bRotated, gQuery, gKey, lambda } = inputs;
  const floats = { q, k, v, cRotated, bRotated, gQuery, gKey, lambda };
  for (const [name, tensor] of Object.entries(floats)) expectKind(name, tensor, "float");
  expectSameDType(cRotated, bRotated);
}

/** Multiply-adds of `keyProducts` products over D and S and `valueProducts` over E, of the half that is seen. */
export function decayAttentionFlops(inputs: DecayAttentionInputs, keyProducts: number, valueProducts: number): Dim {
  const [B, T, H, D] = inputs.q.shape;
  const [E, S] = [inputs.v.shape[3], inputs.cRotated.shape[3]];
  if (!B || !T || !H || !D || !E || !S) return Dim.of(0);
  const perPair = D.plus(S).times(keyProducts).plus(E.times(valueProducts));
  return B.times(T).times(H).times(keyCount(inputs)).times(perPair);
}

export const decayAttentionOp: DefinedOp<
  "decayAttention",
  DecayAttentionInputs,
  DecayAttentionAttributes,
  DecayAttentionOutputs
> = /* @__PURE__ */ defineComposite({
  name: "decayAttention",
  inputs: ["q", "k", "v", "cRotated", "bRotated", "gQuery", "gKey", "lambda", "queryStart?", "keyLength?", "pages?"],
  check: checkDecayAttention,
  compose(given, { scale }) {
    const inputs = withoutPages(given, ["k", "v", "bRotated", "gKey"]);
    const { q, k, v, gQuery, gKey, queryStart, keyLength } = inputs;
    const bias = importanceTerm(inputs, decayFactors(wide(gQuery), wide(gKey), queryStart));
    return apply(attentionOp, { q, k, v, bias, queryStart, keyLength }, { scale, causal: true });
  },
  vjp({ inputs, attributes, outputs, gradients }) {
    if (inputs.queryStart || inputs.keyLength) {
      throw new GraphError("decayAttention: has no gradient where it reads a cache (queryStart, keyLength)");
    }
    if (gradients.logSumExp)
      throw new GraphError("decayAttention: logSumExp is for the backward pass and has no gradient");
    if (gradients.value === undefined) return {};
    return apply(
      decayAttentionBackwardOp,
      { ...inputs, value: outputs.value, logSumExp: outputs.logSumExp, gradient: gradients.value },
      attributes,
    );
  },
  flops: (inputs) => decayAttentionFlops(inputs, 1, 1),
  source: "arXiv:2606.02332, equation of the score, without its clamp",
});

/** By the inputs of these names. */
export type DecayAttentionGradients = {
  readonly [N in "q" | "k" | "v" | "cRotated" | "bRotated" | "gQuery" | "gKey" | "lambda"]: Tensor;
};

type BackwardInputs = DecayAttentionInputs & Pick<AttentionBackwardInputs, "value" | "logSumExp" | "gradient">;

/**
 * Gradients of decayAttention by all its float inputs, each of its input's shape, for queries that start at 0.
 * `gradient` is that by its result, [B,T,H,E].
 */
export const decayAttentionBackwardOp: DefinedOp<
  "decayAttentionBackward",
  BackwardInputs,
  DecayAttentionAttributes,
  DecayAttentionGradients
> = /* @__PURE__ */ defineComposite({
  name: "decayAttentionBackward",
  inputs: ["q", "k", "v", "cRotated", "bRotated", "gQuery", "gKey", "lambda", "value", "logSumExp", "gradient"],
  compose(inputs, { scale }) {
    const { q, k, v, gQuery, gKey, value, logSumExp, gradient } = inputs;
    const decay = decayFactors(wide(gQuery), wide(gKey), undefined);
    const bias = importanceTerm(inputs, decay);
    const content = apply(attentionBackwardOp, { q, k, v, bias, value, logSumExp, gradient }, { scale, causal: true });
    return { q: content.q, k: content.k, v: content.v, ...importanceGradients(inputs, decay, content.scores) };
  },
  flops: (inputs) => decayAttentionFlops(inputs, 3, 2),
});

/**
 * Gradients of the importance term by its inputs.
 * @param decay  [B,H,T,C] exp(g_i - g_j)
 * @param scores [B,H,T,C] gradient by the scores, zero where a key is not seen
 */
export function importanceGradients(
  { cRotated, bRotated, gQuery, gKey, lambda }: DecayAttentionInputs,
  decay: Tensor,
  scores: Tensor,
): Omit<DecayAttentionGradients, "q" | "k" | "v"> {
  const narrow = (x: Tensor, like: Tensor) => cast(x, like.dtype) as Tensor;
  const factor = perHead(wide(lambda));
  const weights = narrow(mul(scores, decay), bRotated);
  const [c, b] = [wide(swapHeads(cRotated)), wide(swapHeads(bRotated))];
  // Sums stay wide until the gradients of g are taken from them: those are small differences.
  const dtype = wideDType(bRotated);
  const unscaled = matmul(weights, swapHeads(bRotated), { dtype });
  const dc = mul(unscaled, factor);
  const db = matmul(weights, narrow(mul(c, factor), bRotated), { transposeA: true, dtype });
  // d score / d g_i = score, so g_i gets c_i . dc_i and g_j gets -(b_j . db_j): no pass over pairs is needed.
  const read = sum(mul(c, dc), { axes: [-1] });
  const write = sum(mul(b, db), { axes: [-1] });
  return {
    cRotated: swapHeads(narrow(dc, cRotated)),
    bRotated: swapHeads(narrow(db, bRotated)),
    gQuery: narrow(transpose(read, [0, 2, 1]), gQuery),
    gKey: narrow(transpose(sub(totalsGradient(sub(read, write)), write), [0, 2, 1]), gKey),
    lambda: narrow(sum(mul(c, unscaled), { axes: [0, 2, 3] }), lambda),
  };
}

/**
 * The total of a block, which its last position holds, takes part in every pair that spans it: it gets the gradient of
 * all later positions, [B,H,T]. Gradients of pairs inside the later blocks cancel in read - write.
 */
export function totalsGradient(difference: Tensor): Tensor {
  const T = difference.shape[2] ?? Dim.of(0);
  const blocks = chunk(difference, { axis: 2, size: decayBlock });
  const later = cumulativeSum(sum(blocks, { axes: [3], keepDims: true }), { axis: 2, exclusive: true, reverse: true });
  return unchunk(pad(later, { axis: 3, before: decayBlock - 1 }), { axis: 2, length: T });
}

/**
 * Attention whose score has an importance term beside the content term.
 * score_ij = scale * q_i . k_j + lambda_h * exp(g_i - g_j) * (c_i . b_j), over the keys that query i may see
 *
 * Exact and causal at any length and any decay: g_i - g_j <= 0 wherever it is used, and no long sum is formed.
 *
 * @param inputs  as in DecayAttentionInputs; c, b and g come from `ssmPrepare`
 * @param options.scale factor of q . k; default 1 / sqrt(D)
 * @returns [B,T,H,E]
 * @throws ShapeError where sizes differ, or D is not bound and no scale given; DTypeError where dtypes differ; GraphError
 *   for pages without queryStart
 * Source: arXiv:2606.02332, equation of the score, without its clamp.
 */
export function decayAttention(inputs: DecayAttentionInputs, options: { readonly scale?: number } = {}): Tensor {
  const scale = scaleOf("decayAttention", inputs.q, options.scale);
  return apply(decayAttentionOp, inputs, { scale }).value;
}
