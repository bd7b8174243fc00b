import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { div } from "./div.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";

export const sqrtOp = /* @__PURE__ */ defineUnary<"sqrt", "float">("sqrt", {
  kinds: ["float"],
  apply: (x) => Math.sqrt(x),
  vjp: (_x, y, gradient) => div(mul(gradient, 0.5), y),
});

/**
 * Square root, element by element; NaN below 0.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function sqrt(x: Tensor): Tensor {
  return apply(sqrtOp, { x }, {}).value;
}
