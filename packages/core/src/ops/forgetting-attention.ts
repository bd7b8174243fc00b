import { Dim } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import {
  type AttentionBackwardInputs,
  attentionBackwardOp,
  attentionOp,
  checkPositions,
  queryPositions,
  scaleOf,
} from "./attention.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { constant } from "./constant.ts";
import { decaySums, totalsGradient } from "./decay-attention.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { neg } from "./neg.ts";
import { or } from "./or.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { transpose } from "./transpose.ts";
import { where } from "./where.ts";

/** What attention with forget gates reads, with the gates summed up. */
export interface ForgettingAttentionInputs {
  readonly [name: string]: Tensor | Tensor<"int"> | undefined;
  /** [B,T,H,D] queries */
  readonly q: Tensor;
  /** [B,C,H,D] keys */
  readonly k: Tensor;
  /** [B,C,H,E] values */
  readonly v: Tensor;
  /** [B,T,H] sum of log forget gates within the query's block of 64 positions; with `gKey`, or neither */
  readonly gQuery?: Tensor | undefined;
  /** [B,C,H] the same for each key */
  readonly gKey?: Tensor | undefined;
  /** int32 [B] position of the first query; default zeros */
  readonly queryStart?: Tensor<"int"> | undefined;
}

export interface ForgettingAttentionAttributes {
  readonly [name: string]: unknown;
  readonly scale: number;
  /** Keys that a query sees, itself included; 0 for all. */
  readonly window: number;
  /** First positions that every query sees, whatever its window. */
  readonly sinks: number;
}

/** What is added to the scores: [B,H,T,C], or what broadcasts to it. */
function biasOf(inputs: ForgettingAttentionInputs, attributes: ForgettingAttentionAttributes): Tensor {
  const forgotten = forgottenOf(inputs) ?? (constant(0, inputs.q.dtype) as Tensor);
  const near = nearKeys(inputs, attributes);
  return near ? where(near, forgotten, Number.NEGATIVE_INFINITY) : forgotten;
}

/** g_i - g_j, [B,H,T,C]; undefined where nothing is forgotten. */
export function forgottenOf({ gQuery, gKey, queryStart }: ForgettingAttentionInputs): Tensor | undefined {
  return gQuery && gKey ? decaySums(gQuery, gKey, queryStart) : undefined;
}

/** True for keys within the window of a query and for sinks, [T,C] or [B,1,T,C]; undefined where there is no window. */
export function nearKeys(
  inputs: Pick<ForgettingAttentionInputs, "q" | "k" | "queryStart">,
  { window, sinks }: Pick<ForgettingAttentionAttributes, "window" | "sinks">,
): Tensor<"bool"> | undefined {
  if (window === 0) return undefined;
  const key = iota(inputs.k.shape[1] ?? Dim.of(0));
  const isNear = less<"int">(sub<"int">(queryPositions(inputs), window), key);
  return sinks > 0 ? or(isNear, less<"int">(key, sinks)) : isNear;
}

export const forgettingAttentionOp: DefinedOp<
  "forgettingAttention",
  ForgettingAttentionInputs,
  ForgettingAttentionAttributes,
  { value: Tensor; logSumExp: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "forgettingAttention",
  inputs: ["q", "k", "v", "gQuery?", "gKey?", "queryStart?"],
  check({ q, k, v, gQuery, gKey, queryStart }, { window, sinks }) {
    for (const [name, tensor] of Object.entries({ q, k, v })) expectKind(name, tensor, "float");
    const sizes = expectShape("q", q, ["B", "T", "H", "D"]);
    const keys = expectShape("k", k, ["B", "C", "H", "D"], sizes);
    expectShape("v", v, ["B", "C", "H", "E"], keys);
    if ((gQuery === undefined) !== (gKey === undefined)) throw new ShapeError("gQuery and gKey go together");
    if (gQuery) expectShape("gQuery", gQuery, ["B", "T", "H"], keys);
    if (gKey) expectShape("gKey", gKey, ["B", "C", "H"], keys);
    checkPositions({ queryStart }, sizes);
    for (const [name, value] of Object.entries({ window, sinks })) {
      if (!Number.isInteger(value) || value < 0) {
        throw new ShapeError(`${name} must be a whole number >= 0, got ${value}`);
      }
    }
  },
  compose(inputs, attributes) {
    const { q, k, v, queryStart } = inputs;
    const bias = biasOf(inputs, attributes);
    return apply(attentionOp, { q, k, v, bias, queryStart }, { scale: attributes.scale, causal: true });
  },
  vjp({ inputs, attributes, outputs, gradients }) {
    if (inputs.queryStart) {
      throw new GraphError("forgettingAttention: has no gradient where it reads a cache (queryStart)");
    }
    if (gradients.logSumExp)
      throw new GraphError("forgettingAttention: logSumExp is for the backward pass and has no gradient");
    if (gradients.value === undefined) return {};
    const { q, k, v, gQuery, gKey } = inputs;
    const { value, logSumExp } = outputs;
    const all = { q, k, v, gQuery, gKey, value, logSumExp, gradient: gradients.value };
    const backward = apply(forgettingAttentionBackwardOp, all, attributes);
    if (!gQuery || !gKey) return { q: backward.q, k: backward.k, v: backward.v };
    // Gradients of a row of scores sum to zero, so none of what is added to a whole row has a gradient.
    return { ...backward, gQuery: broadcastTo(constant(0, gQuery.dtype) as Tensor, gQuery.shape) };
  },
  flops({ q, k, v }) {
    const [B, T, H, D] = q.shape;
    const [C, E] = [k.shape[1], v.shape[3]];
    return B && T && H && D && C && E ? B.times(T).times(H).times(C).times(D.plus(E)) : Dim.of(0);
  },
  source: "Lin et al. 2025, arXiv:2503.02130",
});

type BackwardInputs = ForgettingAttentionInputs & Pick<AttentionBackwardInputs, "value" | "logSumExp" | "gradient">;

/**
 * Gradients of forgettingAttention by all its float inputs but `gQuery`, which has none, each of its input's shape, for
 * queries that start at 0. `gradient` is that by its result, [B,T,H,E].
 */
export const forgettingAttentionBackwardOp: DefinedOp<
  "forgettingAttentionBackward",
  BackwardInputs,
  ForgettingAttentionAttributes,
  { q: Tensor; k: Tensor; v: Tensor; gKey: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "forgettingAttentionBackward",
  inputs: ["q", "k", "v", "gQuery?", "gKey?", "value", "logSumExp", "gradient"],
  compose(inputs, attributes) {
    const { q, k, v, value, logSumExp, gradient } = inputs;
    const bias = biasOf(inputs, attributes);
    const content = apply(
      attentionBackwardOp,
      { q, k, v, bias, value, logSumExp, gradient },
      { scale: attributes.scale, causal: true },
    );
    const write = sum(content.scores, { axes: [2] }); // [B,H,C]
    return {
      q: content.q,
      k: content.k,
      v: content.v,
      gKey: transpose(sub(totalsGradient(neg(write)), write), [0, 2, 1]),
    };
  },
  flops({ q, k, v }) {
    const [B, T, H, D] = q.shape;
    const [C, E] = [k.shape[1], v.shape[3]];
    if (!B || !T || !H || !D || !C || !E) return Dim.of(0);
    return B.times(T)
      .times(H)
      .times(C)
      .times(D.times(3).plus(E.times(2)));
  },
});

/**
 * Attention whose scores forget: log gates of all tokens from the key to the query are added, and keys beyond a window
 * are not seen.
 * score_ij = scale * q_i . k_j + g_i - g_j      for i - window < j <= i, or j < sinks
 *
 * With constant gates this is ALiBi; without gates it is plain attention in a sliding window.
 *
 * @param inputs as in ForgettingAttentionInputs; g comes from `blockCumulativeSum` over blocks of `decayBlock`
 * @param options.scale  factor of q . k; default 1 / sqrt(D)
 * @param options.window keys that a query sees, itself included; default all
 * @param options.sinks  first positions that every query sees; default 0
 * @returns [B,T,H,E]
 * @throws ShapeError where sizes differ, gQuery comes without gKey, window or sinks is no whole number >= 0, or D is
 *   not bound and no scale given; DTypeError where dtypes differ
 * Source: Lin et al. 2025, arXiv:2503.02130; Press et al. 2021, arXiv:2108.12409.
 */
export function forgettingAttention(
  inputs: ForgettingAttentionInputs,
  options: { readonly scale?: number; readonly window?: number | undefined; readonly sinks?: number } = {},
): Tensor {
  const scale = scaleOf("forgettingAttention", inputs.q, options.scale);
  return apply(forgettingAttentionOp, inputs, { scale, window: options.window ?? 0, sinks: options.sinks ?? 0 }).value;
}
