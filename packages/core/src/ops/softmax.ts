import { apply, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { div } from "./div.ts";
import { exp } from "./exp.ts";
import { max } from "./max.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";

const last = { axes: [-1], keepDims: true };

export const softmaxOp = /* @__PURE__ */ defineComposite<"softmax", { readonly x: Tensor }, Record<string, never>>({
  name: "softmax",
  inputs: ["x"],
  compose({ x }) {
    const e = exp(sub(x, max(x, last)));
    return { value: div(e, sum(e, last)) };
  },
  vjp({ outputs: { value }, gradients }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    return { x: mul(value, sub(gradient, sum(mul(gradient, value), last))) };
  },
});

/**
 * e^x / sum(e^x) over the last axis.
 *
 * @param x [..., V] float
 * @returns [..., V]
 * @throws DTypeError unless x is a float; ShapeError for a scalar
 */
export function softmax(x: Tensor): Tensor {
  return apply(softmaxOp, { x }, {}).value;
}
