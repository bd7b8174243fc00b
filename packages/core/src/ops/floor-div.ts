import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand } from "./elementwise.ts";

export const floorDivOp = /* @__PURE__ */ defineBinary<"floorDiv", "int">("floorDiv", {
  kinds: ["int"],
  apply: (a, b) => (b === 0 ? 0 : Math.floor(a / b)),
  vjp: { reason: "whole numbers have no gradient" },
});

/**
 * floor(a / b) of whole numbers, element by element; by zero the result is not specified.
 *
 * @param a [...] int, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that both broadcast to
 * @throws ShapeError where the shapes do not broadcast or both are numbers; DTypeError where the dtypes differ or are
 *   not int
 */
export function floorDiv(a: Operand<"int">, b: Operand<"int">): Tensor<"int"> {
  return applyOperands(floorDivOp, a, b);
}
