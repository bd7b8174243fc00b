import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";

export const tanhOp = /* @__PURE__ */ defineUnary<"tanh", "float">("tanh", {
  kinds: ["float"],
  apply: (x) => Math.tanh(x),
  vjp: (_x, y, gradient) => mul(gradient, sub(1, mul(y, y))),
});

/**
 * Hyperbolic tangent, element by element.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function tanh(x: Tensor): Tensor {
  return apply(tanhOp, { x }, {}).value;
}
