import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";

export const expOp = /* @__PURE__ */ defineUnary<"exp", "float">("exp", {
  kinds: ["float"],
  apply: (x) => Math.exp(x),
  vjp: (_x, y, gradient) => mul(gradient, y),
});

/**
 * e^x, element by element.
 *
 * @param x [...] float
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function exp(x: Tensor): Tensor {
  return apply(expOp, { x }, {}).value;
}
