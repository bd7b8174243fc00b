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

/** |x|; the gradient at 0 is 0, element by element. */
export function abs(x: Tensor): Tensor {
  return apply(absOp, { x }, {}).value;
}
