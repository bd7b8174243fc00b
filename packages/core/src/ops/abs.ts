import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";
import { less } from "./less.ts";
import { neg } from "./neg.ts";
import { where } from "./where.ts";

export const absOp = /* @__PURE__ */ defineUnary<"abs", "float">("abs", {
  kinds: ["float"],
  apply: (x) => Math.abs(x),
  vjp: (x, _y, gradient) => where(less(x, 0), neg(gradient), where(less(0, x), gradient, 0)),
});

/**
 * |x|, element by element; the gradient at 0 is 0.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function abs(x: Tensor): Tensor {
  return apply(absOp, { x }, {}).value;
}
