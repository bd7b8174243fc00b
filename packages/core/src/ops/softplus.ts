import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { sigmoid } from "./sigmoid.ts";

export const softplusOp = /* @__PURE__ */ defineUnary<"softplus", "float">("softplus", {
  kinds: ["float"],
  apply: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  vjp: (x, _y, gradient) => mul(gradient, sigmoid(x)),
});

/**
 * log(1 + e^x), element by element, without overflow.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function softplus(x: Tensor): Tensor {
  return apply(softplusOp, { x }, {}).value;
}
