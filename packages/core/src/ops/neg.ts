import { apply } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { defineUnary } from "./elementwise.ts";

export const negOp = /* @__PURE__ */ defineUnary<"neg", "float" | "int">("neg", {
  kinds: ["float", "int"],
  apply: (x) => -x,
  vjp: (_x, _y, gradient) => neg(gradient),
});

/**
 * -x, element by element.
 *
 * @param x [...] float or int
 * @returns [...]
 * @throws DTypeError unless x is a float or an int
 */
export function neg<K extends "float" | "int">(x: Tensor<K>): Tensor<K> {
  return apply(negOp, { x }, {}).value as Tensor<K>;
}
