import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";

export const sigmoidOp = /* @__PURE__ */ defineUnary<"sigmoid", "float">("sigmoid", {
  kinds: ["float"],
  // The exponent is never positive, so that nothing overflows.
  apply: (x) => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x))),
  vjp: (_x, y, gradient) => mul(gradient, mul(y, sub(1, y))),
});

/**
 * 1 / (1 + e^-x), element by element, without overflow.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function sigmoid(x: Tensor): Tensor {
  return apply(sigmoidOp, { x }, {}).value;
}
