import { apply, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { exp } from "./exp.ts";
import { logSumExp } from "./log-sum-exp.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";

export const logSoftmaxOp = /* @__PURE__ */ defineComposite<
  "logSoftmax",
  { readonly x: Tensor },
  Record<string, never>
>({
  name: "logSoftmax",
  inputs: ["x"],
  compose: ({ x }) => ({ value: sub(x, logSumExp(x)) }),
  vjp({ outputs: { value }, gradients }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    return { x: sub(gradient, mul(exp(value), sum(gradient, { axes: [-1], keepDims: true }))) };
  },
});

/**
 * log(softmax(x)) over the last axis.
 *
 * @param x [..., V] float
 * @returns [..., V]
 * @throws DTypeError unless x is a float; ShapeError for a scalar
 */
export function logSoftmax(x: Tensor): Tensor {
  return apply(logSoftmaxOp, { x }, {}).value;
}
