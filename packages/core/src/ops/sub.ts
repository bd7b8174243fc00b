import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";
import { neg } from "./neg.ts";

export const subOp = /* @__PURE__ */ defineBinary<"sub", "float" | "int">("sub", {
  kinds: ["float", "int"],
  apply: (a, b) => a - b,
  vjp: ({ gradient }) => ({ a: () => gradient, b: () => neg(gradient) }),
});

/**
 * a - b, element by element; whole numbers wrap around at 32 bits.
 *
 * @param a [...] float or int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float or int
 */
export function sub<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"sub", "float" | "int", "float" | "int">(subOp, a, b) as Tensor<K>;
}
