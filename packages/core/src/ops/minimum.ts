import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";
import { lessEqual } from "./less-equal.ts";
import { where } from "./where.ts";

export const minimumOp = /* @__PURE__ */ defineBinary<"minimum", "float" | "int">("minimum", {
  kinds: ["float", "int"],
  apply: (a, b) => Math.min(a, b),
  vjp: ({ a, b, gradient }) => ({
    a: () => where(lessEqual(a, b), gradient, 0),
    b: () => where(lessEqual(a, b), 0, gradient),
  }),
});

/**
 * The smaller of a and b, element by element; NaN where either is NaN. Where they are equal the gradient goes to a.
 *
 * @param a [...] float or int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float or int
 */
export function minimum<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"minimum", "float" | "int", "float" | "int">(minimumOp, a, b) as Tensor<K>;
}
