import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { sin } from "./sin.ts";

export const cosOp = /* @__PURE__ */ defineUnary<"cos", "float">("cos", {
  kinds: ["float"],
  apply: (x) => Math.cos(x),
  vjp: (x, _y, gradient) => neg(mul(gradient, sin(x))),
});

/**
 * Cosine, element by element.
 *
 * @param x [...] float, radians
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function cos(x: Tensor): Tensor {
  return apply(cosOp, { x }, {}).value;
}
