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

/** Square root; NaN below 0, element by element. */
export function sqrt(x: Tensor): Tensor {
  return apply(sqrtOp, { x }, {}).value;
}
