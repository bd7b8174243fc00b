import { GraphError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { type AttentionInputs, queryPositions, scaleOf, seenKeys, swapHeads, unmaskedScores } from "./attention.ts";
import { cast, wide, wideDType } from "./cast.ts";
import {
  checkDecayAttention,
  type DecayAttentionGradients,
  type DecayAttentionInputs,
  decayAttentionFlops,
  decayFactors,
  importanceGradients,
  importanceTerm,
} from "./decay-attention.ts";
import { log } from "./log.ts";
import { matmul } from "./matmul.ts";
import { maximum } from "./maximum.ts";
import { minimum } from "./minimum.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { sigmoid } from "./sigmoid.ts";
import { sub } from "./sub.ts";
import { where } from "./where.ts";

interface SigmoidDecayAttentionAttributes {
  readonly [name: string]: unknown;
  readonly scale: number;
}

type Seen = Pick<AttentionInputs, "q" | "k" | "queryStart" | "keyLength">;

/** Logarithm of how many keys each query sees: [T,1] or [B,1,T,1]. */
function logCount(inputs: Seen): Tensor {
  const { keyLength } = inputs;
  const past = add<"int">(queryPositions(inputs), 1);
  const seen = keyLength ? minimum<"int">(past, reshape(keyLength, [keyLength.shape[0] ?? 1, 1, 1, 1])) : past;
  return log(cast(maximum<"int">(seen, 1), wideDType(inputs.q)) as Tensor);
}

/** Weights of keys from the scores of all: zero where a key is not seen, [B,H,T,C]. */
export function sigmoidWeights(inputs: Seen, scores: Tensor): Tensor {
  const weights = sigmoid(sub(scores, logCount(inputs)));
  const seen = seenKeys(inputs, true);
  return seen ? where(seen, weights, 0) : weights;
}

export const sigmoidDecayAttentionOp: DefinedOp<
  "sigmoidDecayAttention",
  DecayAttentionInputs,
  SigmoidDecayAttentionAttributes,
  { value: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "sigmoidDecayAttention",
  inputs: ["q", "k", "v", "cRotated", "bRotated", "gQuery", "gKey", "lambda", "queryStart?", "keyLength?"],
  check: checkDecayAttention,
  compose(inputs, { scale }) {
    const { v, gQuery, gKey, queryStart } = inputs;
    const bias = importanceTerm(inputs, decayFactors(wide(gQuery), wide(gKey), queryStart));
    const p = sigmoidWeights(inputs, unmaskedScores({ ...inputs, bias }, scale));
    return { value: swapHeads(matmul(cast(p, v.dtype) as Tensor, swapHeads(v))) };
  },
  vjp({ inputs, attributes, gradients }) {
    if (inputs.queryStart || inputs.keyLength) {
      throw new GraphError("sigmoidDecayAttention: has no gradient where it reads a cache (queryStart, keyLength)");
    }
    if (gradients.value === undefined) return {};
    return apply(sigmoidDecayAttentionBackwardOp, { ...inputs, gradient: gradients.value }, attributes);
  },
  flops: (inputs) => decayAttentionFlops(inputs, 1, 1),
  source: "Ramapuram et al. 2024, arXiv:2409.04431; arXiv:2606.02332",
});

type BackwardInputs = DecayAttentionInputs & { readonly gradient: Tensor };

/**
 * Gradients of sigmoidDecayAttention by all its float inputs, each of its input's shape, for queries that start at 0.
 * `gradient` is that by its result, [B,T,H,E].
 */
export const sigmoidDecayAttentionBackwardOp: DefinedOp<
  "sigmoidDecayAttentionBackward",
  BackwardInputs,
  SigmoidDecayAttentionAttributes,
  DecayAttentionGradients
> = /* @__PURE__ */ defineComposite({
  name: "sigmoidDecayAttentionBackward",
  inputs: ["q", "k", "v", "cRotated", "bRotated", "gQuery", "gKey", "lambda", "gradient"],
  compose(inputs, { scale }) {
    const { q, k, v, gQuery, gKey, gradient } = inputs;
    const decay = decayFactors(wide(gQuery), wide(gKey), undefined);
    const p = sigmoidWeights(inputs, unmaskedScores({ ...inputs, bias: importanceTerm(inputs, decay) }, scale));
    const dO = swapHeads(gradient);
    const narrow = (x: Tensor) => cast(x, q.dtype) as Tensor;
    const dp = matmul(dO, swapHeads(v), { transposeB: true, dtype: wideDType(q) });
    const ds = mul(dp, sub(p, mul(p, p)));
    return {
      q: swapHeads(mul(matmul(narrow(ds), swapHeads(k)), scale)),
      k: swapHeads(mul(matmul(narrow(ds), swapHeads(q), { transposeA: true }), scale)),
      v: swapHeads(matmul(narrow(p), dO, { transposeA: true })),
      ...importanceGradients(inputs, decay, ds),
    };
  },
  flops: (inputs) => decayAttentionFlops(inputs, 3, 2),
});

/**
 * `decayAttention` with a sigmoid of each score in place of the softmax over all.
 * value_i = sum_j sigmoid(score_ij - ln n_i) v_j, over the n_i keys that query i may see
 *
 * Scores of zero weigh about 1 / n_i each, as with softmax. The published bias is -ln n with n the length of the sequence;
 * with the keys that a query sees instead, it does not depend on later tokens, and cached decoding equals the full pass.
 *
 * @param inputs  as in DecayAttentionInputs; c, b and g come from `ssmPrepare`
 * @param options.scale factor of q . k; default 1 / sqrt(D)
 * @returns [B,T,H,E]
 * @throws ShapeError where sizes differ, or D is not bound and no scale given; DTypeError where dtypes differ
 * Source: Ramapuram et al. 2024, arXiv:2409.04431; the score that of arXiv:2606.02332.
 */
export function sigmoidDecayAttention(inputs: DecayAttentionInputs, options: { readonly scale?: number } = {}): Tensor {
  const scale = scaleOf("sigmoidDecayAttention", inputs.q, options.scale);
  return apply(sigmoidDecayAttentionOp, inputs, { scale }).value;
}
