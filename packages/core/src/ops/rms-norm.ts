import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { cast, wide } from "./cast.ts";
import { div } from "./div.ts";
import { mean } from "./mean.ts";
import { mul } from "./mul.ts";
import { sqrt } from "./sqrt.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";

interface RmsNormAttributes {
  readonly [name: string]: unknown;
  readonly epsilon: number;
}

const last = { axes: [-1], keepDims: true };

function inverseRoot(x: Tensor, epsilon: number): Tensor {
  return div(1, sqrt(add(mean(mul(x, x), last), epsilon)));
}

export const rmsNormOp = /* @__PURE__ */ defineComposite<
  "rmsNorm",
  { readonly x: Tensor; readonly weight: Tensor },
  RmsNormAttributes
>({
  name: "rmsNorm",
  inputs: ["x", "weight"],
  check({ x, weight }) {
    expectKind("x", x, "float");
    expectKind("weight", weight, "float");
    expectShape("weight", weight, ["M"], expectShape("x", x, ["...", "M"]));
  },
  compose({ x, weight }, { epsilon }) {
    const w = wide(x);
    return { value: cast(mul(mul(w, inverseRoot(w, epsilon)), wide(weight)), x.dtype) as Tensor };
  },
  vjp({ inputs: { x, weight }, attributes, gradients }) {
    if (gradients.value === undefined) return {};
    return apply(rmsNormBackwardOp, { x, weight, gradient: gradients.value }, attributes);
  },
  source: "Zhang & Sennrich 2019, arXiv:1910.07467; epsilon inside the root as in Llama",
});

/** Gradients of rmsNorm by x [..., M] and weight [M], from that by its result, `gradient` [..., M]. */
export const rmsNormBackwardOp: DefinedOp<
  "rmsNormBackward",
  { readonly x: Tensor; readonly weight: Tensor; readonly gradient: Tensor },
  RmsNormAttributes,
  { x: Tensor; weight: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "rmsNormBackward",
  inputs: ["x", "weight", "gradient"],
  compose({ x, weight, gradient }, { epsilon }) {
    const w = wide(x);
    const g = wide(gradient);
    const inverse = inverseRoot(w, epsilon);
    const normal = mul(w, inverse);
    const scaled = mul(g, wide(weight));
    const leading = x.shape.slice(0, -1).map((_, axis) => axis);
    return {
      x: cast(mul(inverse, sub(scaled, mul(normal, mean(mul(scaled, normal), last)))), x.dtype) as Tensor,
      weight: cast(sum(mul(g, normal), { axes: leading }), weight.dtype) as Tensor,
    };
  },
});

/**
 * Root-mean-square normalisation over the last axis.
 * y = x / sqrt(mean(x^2) + epsilon) * weight
 *
 * @param x       [..., M] float; statistics are taken in float32 at least
 * @param weight  [M] float
 * @param options.epsilon added under the root, default 1e-6
 * @returns [..., M], dtype of x
 * @throws ShapeError if weight is not [M]; DTypeError unless both are floats
 * Source: Zhang & Sennrich 2019, arXiv:1910.07467; epsilon inside the root as in Llama.
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: { readonly epsilon?: number } = {}): Tensor {
  const { epsilon = 1e-6 } = options;
  return apply(rmsNormOp, { x, weight }, { epsilon }).value;
}
