import { Dim, shapeText } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectSameDType, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { and } from "./and.ts";
import { cacheRead } from "./cache-read.ts";
import { cast, wide, wideDType } from "./cast.ts";
import { dimSize } from "./dim-size.ts";
import { broadcastsTo, sumTo } from "./elementwise.ts";
import { exp } from "./exp.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { lessEqual } from "./less-equal.ts";
import { logSumExp, shiftOf } from "./log-sum-exp.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { transpose } from "./transpose.ts";
import { where } from "./where.ts";

/** What softmax attention reads: queries, keys and values by head, and where they stand. */
export interface AttentionInputs {
  readonly [name: string]: Tensor | Tensor<"int"> | undefined;
  /** [B,T,H,D] queries */
  readonly q: Tensor;
  /** [B,C,H,D] keys */
  readonly k: Tensor;
  /** [B,C,H,E] values; their width may differ from that of the keys */
  readonly v: Tensor;
  /** Added to the scores before the mask; broadcasts to [B,H,T,C]; float32 or the dtype of q */
  readonly bias?: Tensor | undefined;
  /** int32 [B] position of the first query; default zeros */
  readonly queryStart?: Tensor<"int"> | undefined;
  /** int32 [B] how many keys count; default all */
  readonly keyLength?: Tensor<"int"> | undefined;
  /**
   * int32 [B,M] where the keys lie: k and v are [N,P,...] pages as `cacheWrite` fills them, and C is M P. Only causal, and
   * with `queryStart`; keys after the last query are not read. Default: k and v are [B,C,...]
   */
  readonly pages?: Tensor<"int"> | undefined;
}

interface AttentionAttributes {
  readonly [name: string]: unknown;
  readonly scale: number;
  readonly causal: boolean;
}

type AttentionOutputs = { value: Tensor; logSumExp: Tensor };

const swap = [0, 2, 1, 3];

/** [B,T,H,D] to [B,H,T,D] and back. */
export function swapHeads(x: Tensor): Tensor {
  return transpose(x, swap);
}

/** Scores with bias and mask, [B,H,T,C], float32 at least. */
function scores(inputs: AttentionInputs, { scale, causal }: AttentionAttributes): Tensor {
  const biased = unmaskedScores(inputs, scale);
  const allowed = seenKeys(inputs, causal);
  return allowed ? where(allowed, biased, Number.NEGATIVE_INFINITY) : biased;
}

/** Scores with bias, of keys that are seen and of others, [B,H,T,C], float32 at least. */
export function unmaskedScores({ q, k, bias }: AttentionInputs, scale: number): Tensor {
  const product = mul(matmul(swapHeads(q), swapHeads(k), { transposeB: true, dtype: wideDType(q) }), scale);
  return bias ? add(product, wide(bias)) : product;
}

/** Positions of queries: int32 [T,1] or [B,1,T,1]. */
export function queryPositions({ q, queryStart }: Pick<AttentionInputs, "q" | "queryStart">): Tensor<"int"> {
  const T = q.shape[1] ?? Dim.of(0);
  const row = reshape(iota(T), [T, 1]);
  return queryStart ? add(row, perRow(queryStart)) : row;
}

function perRow(x: Tensor<"int">): Tensor<"int"> {
  return reshape(x, [x.shape[0] ?? Dim.of(0), 1, 1, 1]);
}

/** Which keys each query sees: true in [T,C] or [B,1,T,C]; undefined where it sees all of them. */
export function seenKeys(
  inputs: Pick<AttentionInputs, "q" | "k" | "queryStart" | "keyLength">,
  causal: boolean,
): Tensor<"bool"> | undefined {
  const { k, keyLength } = inputs;
  const key = iota(k.shape[1] ?? Dim.of(0));
  const past = causal ? lessEqual(key, queryPositions(inputs)) : undefined;
  const present = keyLength ? less(key, perRow(keyLength)) : undefined;
  return past && present ? and(past, present) : (past ?? present);
}

function checkAttention(inputs: AttentionInputs, { causal }: AttentionAttributes): void {
  expectKind("q", inputs.q, "float");
  expectSameDType(inputs.q, inputs.k);
  expectSameDType(inputs.q, inputs.v);
  if (inputs.bias) expectKind("bias", inputs.bias, "float");
  const sizes = expectShape("q", inputs.q, ["B", "T", "H", "D"]);
  const rows = keyAxes(inputs, sizes, causal);
  const keys = expectShape("k", inputs.k, [...rows, "H", "D"], sizes);
  expectShape("v", inputs.v, [...rows, "H", "E"], keys);
  checkPositions(inputs, sizes);
  const all = [sizes.B, sizes.H, sizes.T, keyCount(inputs)].flatMap((size) => size ?? []);
  if (inputs.bias && !broadcastsTo(inputs.bias.shape, all)) {
    throw new ShapeError(`bias must broadcast to [B,H,T,C] = ${shapeText(all)}, got ${shapeText(inputs.bias.shape)}`);
  }
}

/** What says where keys lie. */
type PagedInputs = Pick<AttentionInputs, "q" | "k" | "queryStart" | "pages">;

/** Names of the first two axes of what is kept for each key. @throws ShapeError, DTypeError, GraphError for wrong pages */
export function keyAxes(
  { pages, queryStart }: Pick<PagedInputs, "pages" | "queryStart">,
  sizes: { readonly [axis: string]: Dim },
  causal = true,
): readonly [string, string] {
  if (!pages) return ["B", "C"];
  expectKind("pages", pages, "int");
  expectShape("pages", pages, ["B", "M"], sizes);
  if (!queryStart || !causal) throw new GraphError("pages are read up to each query: pass queryStart, and be causal");
  return ["N", "P"];
}

/** C, how many keys there may be. */
export function keyCount({ k, pages }: Pick<PagedInputs, "k" | "pages">): Dim {
  const [, rows = Dim.of(0)] = k.shape;
  return pages ? rows.times(pages.shape[1] ?? Dim.of(0)) : rows;
}

/** The inputs with the rows of each sequence in place of pages, of those that are named. */
export function withoutPages<I extends PagedInputs>(inputs: I, names: readonly (keyof I & string)[]): I {
  const { q, queryStart, pages } = inputs;
  if (!pages || !queryStart) return inputs;
  const length = add<"int">(queryStart, dimSize(q, 1));
  const rows = names.map((name) => [name, cacheRead(inputs[name] as Tensor, pages, length)]);
  return { ...inputs, ...Object.fromEntries(rows), pages: undefined };
}

/** @throws ShapeError, DTypeError unless the optional positions are int32 [B] */
export function checkPositions(
  { queryStart, keyLength }: Pick<AttentionInputs, "queryStart" | "keyLength">,
  sizes: { readonly [axis: string]: Dim },
): void {
  for (const [name, tensor] of Object.entries({ queryStart, keyLength })) {
    if (tensor === undefined) continue;
    expectKind(name, tensor, "int");
    expectShape(name, tensor, ["B"], sizes);
  }
}

/** The factor that was asked for, or 1 / sqrt(D). @throws ShapeError where D is not bound */
export function scaleOf(op: string, q: Tensor, scale: number | undefined): number {
  const width = q.shape[3];
  if (scale !== undefined || width === undefined) return scale ?? 1;
  if (width.value === undefined) {
    throw new ShapeError(
      `${op}: expected a fixed width D for the default scale, got q ${shapeText(q.shape)}; pass scale`,
    );
  }
  return width.value ** -0.5;
}

export const attentionOp: DefinedOp<"attention", AttentionInputs, AttentionAttributes, AttentionOutputs> =
  /* @__PURE__ */ defineComposite({
    name: "attention",
    inputs: ["q", "k", "v", "bias?", "queryStart?", "keyLength?", "pages?"],
    check: checkAttention,
    compose(given, attributes) {
      const inputs = withoutPages(given, ["k", "v"]);
      const s = scores(inputs, attributes);
      const total = logSumExp(s);
      const p = cast(exp(sub(s, shiftOf(total))), inputs.v.dtype) as Tensor;
      const value = swapHeads(matmul(p, swapHeads(inputs.v)));
      return { value, logSumExp: reshape(total, total.shape.slice(0, -1)) };
    },
    vjp({ inputs, attributes, outputs, gradients, needs }) {
      if (inputs.queryStart || inputs.keyLength) {
        throw new GraphError("attention: has no gradient where it reads a cache (queryStart, keyLength)");
      }
      if (gradients.logSumExp)
        throw new GraphError("attention: logSumExp is for the backward pass and has no gradient");
      if (gradients.value === undefined) return {};
      const { q, k, v, bias } = inputs;
      const { value, logSumExp } = outputs;
      const backward = apply(
        attentionBackwardOp,
        { q, k, v, bias, value, logSumExp, gradient: gradients.value },
        attributes,
      );
      return {
        q: backward.q,
        k: backward.k,
        v: backward.v,
        ...(bias && needs.bias ? { bias: sumTo(backward.scores, bias.shape) } : {}),
      };
    },
    flops: (inputs, { causal }) => attentionFlops(inputs, causal, 1, 1),
    source: "Vaswani et al. 2017, arXiv:1706.03762",
  });

/** Multiply-adds of `keyProducts` products over D and `valueProducts` over E; half of them where causal. */
function attentionFlops(inputs: AttentionInputs, causal: boolean, keyProducts: number, valueProducts: number): Dim {
  const [B, T, H, D] = inputs.q.shape;
  const E = inputs.v.shape[3];
  if (!B || !T || !H || !D || !E) return Dim.of(0);
  const pairs = B.times(T).times(H).times(keyCount(inputs));
  return pairs.times(D.times(keyProducts).plus(E.times(valueProducts))).times(causal ? 1 : 2);
}

/** Those of attention, what it gave, and the gradient by it. */
export interface AttentionBackwardInputs extends AttentionInputs {
  /** [B,T,H,E] what attention gave */
  readonly value: Tensor;
  /** [B,T,H] of the scores of each query, float32 */
  readonly logSumExp: Tensor;
  /** [B,T,H,E] gradient of the loss by `value` */
  readonly gradient: Tensor;
}

/** Gradients of attention by q, k, v, and by the scores after scaling ([B,H,T,C], which is what a bias gets). */
export const attentionBackwardOp: DefinedOp<
  "attentionBackward",
  AttentionBackwardInputs,
  AttentionAttributes,
  { q: Tensor; k: Tensor; v: Tensor; scores: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "attentionBackward",
  inputs: ["q", "k", "v", "bias?", "value", "logSumExp", "gradient"],
  compose(inputs, attributes) {
    const { q, k, v, value, logSumExp, gradient } = inputs;
    const p = exp(sub(scores(inputs, attributes), shiftOf(reshape(logSumExp, [...logSumExp.shape, 1]))));
    const dO = swapHeads(gradient);
    const narrow = (x: Tensor) => cast(x, q.dtype) as Tensor;
    // sum_j p_ij dp_ij = o_i . do_i, so that no row of p dp has to be summed.
    const delta = swapHeads(sum(mul(wide(gradient), wide(value)), { axes: [-1], keepDims: true }));
    const ds = mul(p, sub(matmul(dO, swapHeads(v), { transposeB: true, dtype: wideDType(q) }), delta));
    const { scale } = attributes;
    return {
      q: swapHeads(mul(matmul(narrow(ds), swapHeads(k)), scale)),
      k: swapHeads(mul(matmul(narrow(ds), swapHeads(q), { transposeA: true }), scale)),
      v: swapHeads(matmul(narrow(p), dO, { transposeA: true })),
      scores: ds,
    };
  },
  flops: (inputs, { causal }) => attentionFlops(inputs, causal, 3, 2),
  source: "Dao et al. 2022, arXiv:2205.14135, section B.2",
});

/**
 * Softmax attention.
 * value_i = sum_j softmax_j(scale * q_i . k_j + bias_ij) v_j, over the keys that query i may see
 * A query that sees no key gets zeros. Narrow floats are multiplied as they are; scores and softmax are float32.
 *
 * @param inputs q [B,T,H,D], k [B,C,H,D], v [B,C,H,E]; optional bias, queryStart, keyLength, pages as in AttentionInputs
 * @param options.scale  factor of q . k; default 1 / sqrt(D)
 * @param options.causal query at position p sees keys 0 to p; default true
 * @returns [B,T,H,E]
 * @throws ShapeError where sizes differ, or D is not bound and no scale given; DTypeError where dtypes differ; GraphError
 *   for pages without queryStart or not causal
 * Source: Vaswani et al. 2017, arXiv:1706.03762.
 */
export function attention(
  inputs: AttentionInputs,
  options: { readonly scale?: number; readonly causal?: boolean } = {},
): Tensor {
  const scale = scaleOf("attention", inputs.q, options.scale);
  return apply(attentionOp, inputs, { scale, causal: options.causal ?? true }).value;
}
