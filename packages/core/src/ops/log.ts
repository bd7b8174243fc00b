import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { div } from "./div.ts";
import { defineUnary } from "./elementwise.ts";

export const logOp = /* @__PURE__ */ defineUnary<"log", "float">("log", {
  kinds: ["float"],
  apply: (x) => Math.log(x),
  vjp: (x, _y, gradient) => div(gradient, x),
});

/**
 * Natural logarithm, element by element; -Infinity at 0, NaN below.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function log(x: Tensor): Tensor {
  return apply(logOp, { x }, {}).value;
}
