import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";

export const divOp = /* @__PURE__ */ defineBinary<"div", "float">("div", {
  kinds: ["float"],
  apply: (a, b) => a / b,
  vjp: ({ b, value, gradient }) => ({ a: () => div(gradient, b), b: () => neg(div(mul(gradient, value), b)) }),
});

/**
 * a / b, element by element.
 *
 * @param a [...] float, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float
 */
export function div(a: Operand<"float">, b: Operand<"float">): Tensor {
  return applyOperands(divOp, a, b);
}
