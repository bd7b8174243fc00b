import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { div } from "./div.ts";
import { defineUnary } from "./elementwise.ts";

export const log1pOp = /* @__PURE__ */ defineUnary<"log1p", "float">("log1p", {
  kinds: ["float"],
  apply: (x) => Math.log1p(x),
  vjp: (x, _y, gradient) => div(gradient, add(x, 1)),
});

/**
 * log(1 + x), accurate near 0, element by element.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function log1p(x: Tensor): Tensor {
  return apply(log1pOp, { x }, {}).value;
}
