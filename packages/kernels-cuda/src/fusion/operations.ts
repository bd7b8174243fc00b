// Operations that only this backend has: several of the core's in one kernel.

import {
  type AdamwAttributes,
  type AdamwInputs,
  type AnyTensor,
  adamwOp,
  add,
  apply,
  attentionBackwardOp,
  cast,
  type DefinedOp,
  decayAttentionBackwardOp,
  decayAttentionOp,
  defineComposite,
  matmulOp,
  mul,
  neg,
  type OpInputs,
  rmsNormBackwardOp,
  rope,
  ShapeError,
  scatterAdd,
  sigmoid,
  softplus,
  ssmPrepareBackwardOp,
  ssmPrepareOp,
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

/** addend, to whose rows others are added: scatterAdd. */
export const addRowsOp = /* @__PURE__ */ defineComposite<
  "cuda/addRows",
  { readonly addend: Tensor; readonly updates: Tensor; readonly ids: Tensor<"int"> },
  Record<string, never>
>({
  name: "cuda/addRows",
  inputs: ["addend", "updates", "ids"],
  compose({ addend, updates, ids }) {
    const [rows] = addend.shape;
    if (!rows) throw new ShapeError("addRows: expected an addend with rows, got a number");
    return { value: add(addend, scatterAdd(updates, ids, { rows, dtype: addend.dtype })) };
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

/** Of each vector of [B,T,H,S], [B,T,H] float32. */
const squaresOf = (x: Tensor): Tensor => {
  const wide = cast(x, "float32") as Tensor;
  return sum(mul(wide, wide), { axes: [3] });
};

/**
 * decayAttention of states that ssmPrepare prepares, with decays from their projection: log alpha = -softplus(strength +
 * strengthBias). Squared norms of rotated vectors say how far they reach.
 */
export const decayAttentionStatesOp = /* @__PURE__ */ defineComposite<
  "cuda/decayAttentionStates",
  { readonly [N in "q" | "k" | "v" | "c" | "b" | "phase" | "strength" | "strengthBias" | "lambda"]: Tensor },
  { readonly scale: number },
  {
    readonly [N in "value" | "logSumExp" | "cRotated" | "bRotated" | "g" | "phi" | "cSquares" | "bSquares"]: Tensor;
  }
>({
  name: "cuda/decayAttentionStates",
  inputs: ["q", "k", "v", "c", "b", "phase", "strength", "strengthBias", "lambda"],
  compose({ q, k, v, c, b, phase, strength, strengthBias, lambda }, attributes) {
    const logDecay = apply(logDecayOp, { x: strength, bias: strengthBias }, {}).value;
    const prepared = apply(ssmPrepareOp, { c, b, logDecay, phase }, {});
    const { cRotated, bRotated, g } = prepared;
    const inputs = { q, k, v, cRotated, bRotated, gQuery: g, gKey: g, lambda };
    const squares = { cSquares: squaresOf(cRotated), bSquares: squaresOf(bRotated) };
    return { ...apply(decayAttentionOp, inputs, { ...attributes }), ...prepared, ...squares };
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

/** ssmPrepareBackward, whose gradient by the phase is rounded to bfloat16. */
export const ssmPrepareBackwardNarrowOp = /* @__PURE__ */ defineComposite<
  "cuda/ssmPrepareBackwardNarrow",
  InputsOf<typeof ssmPrepareBackwardOp>,
  Record<string, never>,
  { c: Tensor; b: Tensor; logDecay: Tensor; phase: Tensor }
>({
  name: "cuda/ssmPrepareBackwardNarrow",
  inputs: ["cRotated", "bRotated", "phi", "cGradient", "bGradient", "gGradient", "phiGradient?"],
  compose(inputs) {
    const { phase, ...others } = apply(ssmPrepareBackwardOp, inputs, {});
    return { ...others, phase: cast(phase, "bfloat16") as Tensor };
  },
});

/**
 * decayAttentionBackwardJoined, whose gradients by c, b and g go on through ssmPrepareBackwardNarrow, and the one by g to where
 * decays come from: log alpha = -softplus(strength + strengthBias). That by strength is bfloat16. The one by lambda goes on to
 * raw where lambda = softplus(raw). Squared norms are those of decayAttentionStates, where that came before.
 */
export const decayAttentionBackwardStatesOp = /* @__PURE__ */ defineComposite<
  "cuda/decayAttentionBackwardStates",
  InputsOf<typeof decayAttentionBackwardOp> &
    Tables & {
      readonly phi: Tensor;
      readonly strength: Tensor;
      readonly strengthBias: Tensor;
      readonly raw?: Tensor | undefined;
      readonly cSquares?: Tensor | undefined;
      readonly bSquares?: Tensor | undefined;
    },
  { readonly scale: number },
  {
    q: Tensor;
    k: Tensor;
    v: Tensor;
    c: Tensor;
    b: Tensor;
    phase: Tensor;
    strength: Tensor;
    strengthBias: Tensor;
    lambda: Tensor;
  }
>({
  name: "cuda/decayAttentionBackwardStates",
  inputs: [...joinedInputs, "phi", "strength", "strengthBias", "raw?", "cSquares?", "bSquares?"],
  compose({ phi, strength, strengthBias, raw, cSquares: _c, bSquares: _b, ...inputs }, attributes) {
    const given = inputs as InputsOf<typeof decayAttentionBackwardJoinedOp>;
    const joined = apply(decayAttentionBackwardJoinedOp, given, { ...attributes });
    const { q, k, v, cRotated: cGradient, bRotated: bGradient, g: gGradient, lambda } = joined;
    const { cRotated, bRotated } = given;
    const rotated = { cRotated, bRotated, phi, cGradient, bGradient, gGradient };
    const { c, b, logDecay, phase } = apply(ssmPrepareBackwardNarrowOp, rotated, {});
    const dStrength = mul(neg(logDecay), sigmoid(add(strength, strengthBias)));
    return {
      ...{ q, k, v, c, b, phase },
      strength: cast(dStrength, "bfloat16") as Tensor,
      strengthBias: sum(dStrength, { axes: [0, 1] }),
      lambda: raw ? mul(lambda, sigmoid(raw)) : lambda,
    };
  },
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
