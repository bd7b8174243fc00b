import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";
import { lessEqual } from "./less-equal.ts";
import { where } from "./where.ts";

export const maximumOp = /* @__PURE__ */ defineBinary<"maximum", "float" | "int">("maximum", {
  kinds: ["float", "int"],
  apply: (a, b) => Math.max(a, b),
  vjp: ({ a, b, gradient }) => ({
    a: () => where(lessEqual(b, a), gradient, 0),
    b: () => where(lessEqual(b, a), 0, gradient),
  }),
});

/**
 * The larger of a and b, element by element; NaN where either is NaN. Where they are equal the gradient goes to a.
 *
 * @param a [...] float or int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float or int
 */
export function maximum<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"maximum", "float" | "int", "float" | "int">(maximumOp, a, b) as Tensor<K>;
}
