import { Dim } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { attention, scaleOf } from "./attention.ts";
import { cast, wide } from "./cast.ts";
import { concat } from "./concat.ts";
import { cos } from "./cos.ts";
import { cumulativePhase } from "./cumulative-phase.ts";
import { cumulativeSum } from "./cumulative-sum.ts";
import { decayAttention } from "./decay-attention.ts";
import { exp } from "./exp.ts";
import { maximum } from "./maximum.ts";
import { minimum } from "./minimum.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { reshape } from "./reshape.ts";
import { rope } from "./rope.ts";
import { sigmoidDecayAttention } from "./sigmoid-decay-attention.ts";
import { sin } from "./sin.ts";
import { slice } from "./slice.ts";
import { sqrt } from "./sqrt.ts";
import { ssmPrepare } from "./ssm-prepare.ts";
import { sub } from "./sub.ts";

/** How the importance term is computed: by its formula, or folded into keys and queries as the paper's code does. */
export type SisaForm = "exact" | "sdpa";

/** What makes weights of scores. */
export type SisaWeights = "softmax" | "sigmoid";

/** |g - offset| is clamped to this in form `sdpa`. */
export const sdpaClamp = 11;

/** What SISA reads: content and state channels by head, decays and phases of every token. */
export interface SisaAttentionInputs {
  readonly [name: string]: Tensor;
  /** [B,T,H,D] content query, positional rotation applied */
  readonly q: Tensor;
  /** [B,T,H,D] content key, positional rotation applied */
  readonly k: Tensor;
  /** [B,T,H,E] value */
  readonly v: Tensor;
  /** [B,T,H,S] read vectors, not yet rotated */
  readonly c: Tensor;
  /** [B,T,H,S] write vectors, not yet rotated */
  readonly b: Tensor;
  /** [B,T,H] log alpha_t <= 0, float32 */
  readonly logDecay: Tensor;
  /** [B,T,H,S/2] theta_t in radians, float32 */
  readonly phase: Tensor;
  /** [H] > 0, float32 */
  readonly lambda: Tensor;
}

interface SisaAttentionAttributes {
  readonly [name: string]: unknown;
  readonly scale: number;
  readonly form: SisaForm;
  readonly weights: SisaWeights;
}

export const sisaAttentionOp: DefinedOp<
  "sisaAttention",
  SisaAttentionInputs,
  SisaAttentionAttributes,
  { value: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "sisaAttention",
  inputs: ["q", "k", "v", "c", "b", "logDecay", "phase", "lambda"],
  check(inputs, { form, weights }) {
    for (const [name, tensor] of Object.entries(inputs)) expectKind(name, tensor, "float");
    const sizes = expectShape("q", inputs.q, ["B", "T", "H", "D"]);
    expectShape("k", inputs.k, ["B", "T", "H", "D"], sizes);
    expectShape("v", inputs.v, ["B", "T", "H", "E"], sizes);
    const states = expectShape("c", inputs.c, ["B", "T", "H", "S"], sizes);
    expectShape("b", inputs.b, ["B", "T", "H", "S"], states);
    expectShape("logDecay", inputs.logDecay, ["B", "T", "H"], states);
    const half = (states.S ?? Dim.of(0)).ceilDiv(2);
    if (!half.times(2).equals(states.S ?? 0)) throw new ShapeError(`S must be even, got ${states.S}`);
    expectShape("phase", inputs.phase, ["B", "T", "H", "S/2"], { ...states, "S/2": half });
    expectShape("lambda", inputs.lambda, ["H"], states);
    if (form !== "exact" && form !== "sdpa") throw new ShapeError(`form must be "exact" or "sdpa", got "${form}"`);
    if (weights !== "softmax" && weights !== "sigmoid") {
      throw new ShapeError(`weights must be "softmax" or "sigmoid", got "${weights}"`);
    }
    if (form === "sdpa" && weights === "sigmoid") {
      throw new ShapeError('form "sdpa" is stock attention, which has no weights "sigmoid"; use form "exact"');
    }
  },
  compose(inputs, { scale, form, weights }) {
    return { value: form === "exact" ? exact(inputs, scale, weights) : sdpa(inputs, scale) };
  },
  source: "arXiv:2606.02332",
});

function exact(
  { q, k, v, c, b, logDecay, phase, lambda }: SisaAttentionInputs,
  scale: number,
  weights: SisaWeights,
): Tensor {
  const { cRotated, bRotated, g } = ssmPrepare({ c, b, logDecay, phase });
  const attend = weights === "softmax" ? decayAttention : sigmoidDecayAttention;
  return attend({ q, k, v, cRotated, bRotated, gQuery: g, gKey: g, lambda }, { scale });
}

function sdpa(inputs: SisaAttentionInputs, scale: number): Tensor {
  const { query, key } = sdpaChannels(inputs, scale);
  const [q, k] = [concat([inputs.q, query], { axis: 3 }), concat([inputs.k, key], { axis: 3 })];
  return attention({ q, k, v: inputs.v }, { scale });
}

/** The channels whose product, times scale, is the importance term of form `sdpa`: [B,T,H,S] each. */
export function sdpaChannels({ q, c, b, logDecay, phase, lambda }: SisaAttentionInputs, scale: number) {
  const g = cumulativeSum(logDecay, { axis: 1 });
  const last = (g.shape[1] ?? Dim.of(1)).minus(1);
  // g never rises, so its largest value is the first and its smallest the last; the gradient goes there too.
  const offset = mul(add(slice(g, { axis: 1, end: 1 }), slice(g, { axis: 1, start: last })), 0.5);
  const clamped = minimum(maximum(sub(g, offset), -sdpaClamp), sdpaClamp);
  const decay = reshape(clamped, [...clamped.shape, 1]);
  const phi = cumulativePhase({ x: phase });
  const [cosPhi, sinPhi] = [cos(phi), sin(phi)];
  // The attention call scales the whole score, so the factor of the importance term is divided by that scale.
  const weight = reshape(mul(sqrt(lambda), scale ** -0.5), [...lambda.shape, 1]);
  const channels = (x: Tensor, factor: Tensor) =>
    cast(mul(mul(wide(rope(x, cosPhi, sinPhi)), factor), weight), q.dtype) as Tensor;
  const query = channels(c, exp(decay));
  const key = channels(b, exp(neg(decay)));
  return { query, key };
}

/**
 * SISA: attention whose score carries the importance signal of a state space model.
 * score_ij = scale * q_i . k_j + lambda_h * exp(g_i - g_j) * (R(Phi_i) c_i) . (R(Phi_j) b_j)   for j <= i
 * with g and Phi the running sums of logDecay and phase.
 *
 * Form `exact` is that formula, finite and causal at any length and decay. Form `sdpa` is the paper's code: one offset
 * for the whole sequence, decays clamped to e^+-11, and one stock attention call over concatenated channels. Both agree
 * while no clamp is active; where one is, `sdpa` sees the future through its offset and forgets nothing inside the
 * clamped ends.
 *
 * @param inputs  as in SisaAttentionInputs
 * @param options.scale factor of q . k; default 1 / sqrt(D)
 * @param options.form  default `exact`
 * @param options.weights what makes weights of scores: `softmax`, or `sigmoid` as in sigmoidDecayAttention; default `softmax`
 * @returns [B,T,H,E]
 * @throws ShapeError where sizes differ, S is odd, D is not bound and no scale given, or form and weights do not go
 *   together; DTypeError where dtypes differ
 * Source: arXiv:2606.02332.
 */
export function sisaAttention(
  inputs: SisaAttentionInputs,
  options: { readonly scale?: number; readonly form?: SisaForm; readonly weights?: SisaWeights } = {},
): Tensor {
  const { form = "exact", weights = "softmax" } = options;
  const scale = scaleOf("sisaAttention", inputs.q, options.scale);
  return apply(sisaAttentionOp, inputs, { scale, form, weights }).value;
}
