import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { cos } from "./cos.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";

export const sinOp = /* @__PURE__ */ defineUnary<"sin", "float">("sin", {
  kinds: ["float"],
  apply: (x) => Math.sin(x),
  vjp: (x, _y, gradient) => mul(gradient, cos(x)),
});

/**
 * Sine, element by element.
 *
 * @param x [...] float, radians
 * @returns [...]
 * @throws DTypeError unless x is a float
 */
export function sin(x: Tensor): Tensor {
  return apply(sinOp, { x }, {}).value;
}
