import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand, type SecondOperand } from "./elementwise.ts";

export const mulOp = /* @__PURE__ */ defineBinary<"mul", "float" | "int">("mul", {
  kinds: ["float", "int"],
  apply: (a, b) => a * b,
  applyWhole: Math.imul,
  vjp: ({ a, b, gradient }) => ({ a: () => mul(gradient, b), b: () => mul(gradient, a) }),
});

/**
 * a * b, element by element; whole numbers wrap around at 32 bits.
 *
 * @param a [...] float or int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not float or int
 */
export function mul<K extends "float" | "int" = "float">(a: Operand<K>, b: SecondOperand<K>): Tensor<K> {
  return applyOperands<"mul", "float" | "int", "float" | "int">(mulOp, a, b) as Tensor<K>;
}
