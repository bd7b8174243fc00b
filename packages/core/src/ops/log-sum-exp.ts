import { apply, defineComposite } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { equal } from "./equal.ts";
import { exp } from "./exp.ts";
import { log } from "./log.ts";
import { max } from "./max.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { where } from "./where.ts";

const last = { axes: [-1], keepDims: true };

/** What is subtracted before exponentials. Zero in place of minus infinity, so that a row of nothing gives zeros, not NaN. */
export function shiftOf(x: Tensor): Tensor {
  return where(equal(x, Number.NEGATIVE_INFINITY), 0, x);
}

export const logSumExpOp = /* @__PURE__ */ defineComposite<"logSumExp", { readonly x: Tensor }, Record<string, never>>({
  name: "logSumExp",
  inputs: ["x"],
  compose({ x }) {
    const shift = shiftOf(max(x, last));
    return { value: add(shift, log(sum(exp(sub(x, shift)), last))) };
  },
  vjp({ inputs: { x }, outputs: { value }, gradients }) {
    return { x: gradients.value && mul(gradients.value, exp(sub(x, shiftOf(value)))) };
  },
});

/**
 * log(sum(e^x)) over the last axis. Of a row that holds minus infinity only, minus infinity.
 *
 * @param x [..., V] float
 * @returns [..., 1]
 * @throws DTypeError unless x is a float; ShapeError for a scalar
 */
export function logSumExp(x: Tensor): Tensor {
  return apply(logSumExpOp, { x }, {}).value;
}
