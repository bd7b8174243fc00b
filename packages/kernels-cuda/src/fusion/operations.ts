// Operations that only this backend has: several of the core's in one kernel.

import {
  type AdamwAttributes,
  type AdamwInputs,
  type AnyTensor,
  adamwOp,
  add,
  apply,
  cast,
  defineComposite,
  matmulOp,
  rmsNormBackwardOp,
  type Tensor,
} from "@sisa/core";

type Named = { readonly [name: string]: AnyTensor };

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
