// Operations that only this backend has: several of the core's in one kernel.

import {
  type AdamwAttributes,
  type AdamwInputs,
  type AnyTensor,
  adamwOp,
  add,
  apply,
  attentionBackwardOp,
  blockCumulativeSum,
  broadcastTo,
  cast,
  constant,
  type DefinedOp,
  decayAttentionBackwardOp,
  decayBlock,
  defineComposite,
  matmulOp,
  mul,
  neg,
  type OpInputs,
  rmsNormBackwardOp,
  rope,
  sigmoid,
  softplus,
  ssmPrepareBackwardOp,
  sum,
  type Tensor,
} from "@sisa/core";

type Named = { readonly [name: string]: AnyTensor };

/** The inputs of an operation of the core. */
type InputsOf<O> = O extends DefinedOp<string, infer I, infer _A, infer _O> ? I : never;

/** addend + a b, rounded once. */
export const productAddOp = /* @__PURE__ */ defineComposite<
  "cuda/productAdd",
  { readonly a: Tensor; readonly b: Tensor; readonly addend: Tensor },
  { readonly transposeA: boolean; readonly transposeB: boolean }
>({
  name: "cuda/productAdd",
  inputs: ["a", "b", "addend"],
  compose: ({ a, b, addend }, attributes) => ({
    value: add(addend, apply(matmulOp, { a, b }, { ...attributes }).value),
  }),
});

/** rmsNormBackward, whose gradient by x is added to another one. */
export const rmsNormBackwardAddOp = /* @__PURE__ */ defineComposite<
  "cuda/rmsNormBackwardAdd",
  { readonly x: Tensor; readonly weight: Tensor; readonly gradient: Tensor; readonly addend: Tensor },
  { readonly epsilon: number },
  { x: Tensor; weight: Tensor }
>({
  name: "cuda/rmsNormBackwardAdd",
  inputs: ["x", "weight", "gradient", "addend"],
  compose({ addend, ...inputs }, attributes) {
    const { x, weight } = apply(rmsNormBackwardOp, inputs, { ...attributes });
    return { x: add(addend, x), weight };
  },
});

/** Tables of a rotation, [T,1,D/2] float32. */
interface Tables extends OpInputs {
  readonly cos?: Tensor | undefined;
  readonly sin?: Tensor | undefined;
}

const rotated = (x: Tensor, { cos, sin }: Tables): Tensor => (cos && sin ? rope(x, cos, sin) : x);

/** attentionBackward, whose gradients by q and k are rotated. */
export const attentionBackwardRotatedOp = /* @__PURE__ */ defineComposite<
  "cuda/attentionBackwardRotated",
  InputsOf<typeof attentionBackwardOp> & Tables,
  { readonly scale: number; readonly causal: boolean },
  { q: Tensor; k: Tensor; v: Tensor }
>({
  name: "cuda/attentionBackwardRotated",
  inputs: ["q", "k", "v", "value", "logSumExp", "gradient", "cos", "sin"],
  compose({ cos, sin, ...inputs }, attributes) {
    const { q, k, v } = apply(attentionBackwardOp, inputs as InputsOf<typeof attentionBackwardOp>, { ...attributes });
    return { q: rotated(q, { cos, sin }), k: rotated(k, { cos, sin }), v };
  },
});

const joinedInputs = [
  ...["q", "k", "v", "cRotated", "bRotated", "gQuery", "gKey", "lambda", "value", "logSumExp", "gradient"],
  ...["cos?", "sin?"],
];

/**
 * decayAttentionBackward of one g for queries and keys, whose gradient is the sum of both. Gradients by c and b are float32:
 * that by the phase is a small difference of them. Those by q and k are rotated where there are tables.
 */
export const decayAttentionBackwardJoinedOp = /* @__PURE__ */ defineComposite<
  "cuda/decayAttentionBackwardJoined",
  InputsOf<typeof decayAttentionBackwardOp> & Tables,
  { readonly scale: number },
  { q: Tensor; k: Tensor; v: Tensor; cRotated: Tensor; bRotated: Tensor; g: Tensor; lambda: Tensor }
>({
  name: "cuda/decayAttentionBackwardJoined",
  inputs: joinedInputs,
  compose({ cos, sin, ...inputs }, attributes) {
    const given = inputs as InputsOf<typeof decayAttentionBackwardOp>;
    const { q, k, gQuery, gKey, ...others } = apply(decayAttentionBackwardOp, given, { ...attributes });
    const [cRotated, bRotated] = [others.cRotated, others.bRotated].map((x) => cast(x, "float32") as Tensor) as [
      Tensor,
      Tensor,
    ];
    return {
      q: rotated(q, { cos, sin }),
      k: rotated(k, { cos, sin }),
      v: others.v,
      cRotated,
      bRotated,
      g: add(gQuery, gKey),
      lambda: others.lambda,
    };
  },
});

/**
 * decayAttentionBackwardJoined, whose gradient by g goes on to where decays come from: log alpha = -softplus(strength +
 * strengthBias). That by strength is bfloat16. The one by lambda goes on to raw where lambda = softplus(raw).
 */
export const decayAttentionBackwardStrengthOp = /* @__PURE__ */ defineComposite<
  "cuda/decayAttentionBackwardStrength",
  InputsOf<typeof decayAttentionBackwardOp> &
    Tables & { readonly strength: Tensor; readonly strengthBias: Tensor; readonly raw?: Tensor | undefined },
  { readonly scale: number },
  {
    q: Tensor;
    k: Tensor;
    v: Tensor;
    cRotated: Tensor;
    bRotated: Tensor;
    strength: Tensor;
    strengthBias: Tensor;
    lambda: Tensor;
  }
>({
  name: "cuda/decayAttentionBackwardStrength",
  inputs: [...joinedInputs, "strength", "strengthBias", "raw?"],
  compose({ strength, strengthBias, raw, ...inputs }, attributes) {
    const given = inputs as InputsOf<typeof decayAttentionBackwardJoinedOp>;
    const { g, lambda, ...others } = apply(decayAttentionBackwardJoinedOp, given, { ...attributes });
    const dLogDecay = blockCumulativeSum({ x: g }, { size: decayBlock, reverse: true });
    const dStrength = mul(neg(dLogDecay), sigmoid(add(strength, strengthBias)));
    return {
      ...others,
      strength: cast(dStrength, "bfloat16") as Tensor,
      strengthBias: sum(dStrength, { axes: [0, 1] }),
      lambda: raw ? mul(lambda, sigmoid(raw)) : lambda,
    };
  },
});

/** ssmPrepareBackward, whose gradient by the phase is rounded to bfloat16; with one by log decay where there is one by g. */
export const ssmPrepareBackwardNarrowOp = /* @__PURE__ */ defineComposite<
  "cuda/ssmPrepareBackwardNarrow",
  Omit<InputsOf<typeof ssmPrepareBackwardOp>, "gGradient"> & { readonly gGradient?: Tensor | undefined },
  Record<string, never>,
  { c: Tensor; b: Tensor; logDecay?: Tensor; phase: Tensor }
>({
  name: "cuda/ssmPrepareBackwardNarrow",
  inputs: ["cRotated", "bRotated", "phi", "cGradient", "bGradient", "gGradient?", "phiGradient?"],
  compose(inputs) {
    const phi = inputs.phi as Tensor;
    const gGradient = inputs.gGradient ?? (broadcastTo(constant(0, phi.dtype), phi.shape.slice(0, 3)) as Tensor);
    const given = { ...inputs, gGradient } as InputsOf<typeof ssmPrepareBackwardOp>;
    const { c, b, logDecay, phase } = apply(ssmPrepareBackwardOp, given, {});
    return { c, b, phase: cast(phase, "bfloat16") as Tensor, ...(inputs.gGradient ? { logDecay } : {}) };
  },
});

/** log alpha = -softplus(x + bias), [B,T,H]. */
export const logDecayOp = /* @__PURE__ */ defineComposite<
  "cuda/logDecay",
  { readonly x: Tensor; readonly bias: Tensor },
  Record<string, never>
>({
  name: "cuda/logDecay",
  inputs: ["x", "bias"],
  compose: ({ x, bias }) => ({ value: neg(softplus(add(x, bias))) }),
});

/** What all tensors of one optimizer step share. */
export const sharedScalars = ["firstCorrection", "secondCorrection", "gradientScale", "proceed"] as const;
/** What each of them has of its own. */
export const ownTensors = ["parameter", "gradient", "firstMoment", "secondMoment", "learningRate"] as const;

export interface AdamwManyAttributes extends Omit<AdamwAttributes, "weightDecay"> {
  readonly weightDecays: readonly number[];
  /** Which of them have a narrow copy. */
  readonly narrow: readonly boolean[];
}

/**
 * adamw of many tensors. The own tensors of the i-th are named `i.parameter` and so on; so are the results, among them
 * `i.narrow`, the parameter in bfloat16, where it is wanted.
 */
export const adamwManyOp = /* @__PURE__ */ defineComposite<"cuda/adamwMany", Named, AdamwManyAttributes, Named>({
  name: "cuda/adamwMany",
  inputs: "...",
  compose(inputs, { weightDecays, narrow, ...attributes }) {
    const shared = sharedScalars.map((name) => [name, inputs[name]] as const);
    const results = weightDecays.map((weightDecay, index) => {
      const own = ownTensors.map((name) => [name, inputs[`${index}.${name}`]] as const);
      const all = Object.fromEntries([...own, ...shared]) as unknown as AdamwInputs;
      const updated = apply(adamwOp, all, { ...attributes, weightDecay } as AdamwAttributes);
      const named = { ...updated, ...(narrow[index] ? { narrow: cast(updated.parameter, "bfloat16") } : {}) };
      return Object.fromEntries(Object.entries(named).map(([name, tensor]) => [`${index}.${name}`, tensor]));
    });
    return Object.assign({}, ...results);
  },
});
