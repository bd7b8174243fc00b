import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";

export const equalOp = /* @__PURE__ */ defineBinary<"equal", "float" | "int", "bool">("equal", {
  kinds: ["float", "int"],
  apply: (a, b) => (a === b ? 1 : 0),
  dtype: "bool",
  vjp: { reason: "a comparison is constant almost everywhere" },
});

/**
 * a == b, element by element; false where either is NaN.
 *
 * @param a [...] float or int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns bool [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float or int
 */
export function equal<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<"bool"> {
  return applyOperands<"equal", "float" | "int", "bool">(equalOp, a, b);
}
