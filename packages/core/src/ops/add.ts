import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";

export const addOp = /* @__PURE__ */ defineBinary<"add", "float" | "int">("add", {
  kinds: ["float", "int"],
  apply: (a, b) => a + b,
  vjp: ({ gradient }) => ({ a: () => gradient, b: () => gradient }),
});

/**
 * a + b, element by element; whole numbers wrap around at 32 bits.
 *
 * @param a [...] float or int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float or int
 */
export function add<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"add", "float" | "int", "float" | "int">(addOp, a, b) as Tensor<K>;
}
