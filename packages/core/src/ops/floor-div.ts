import type { Tensor } from "../graph/tensor.ts";
import { applyOperands, defineBinary, type Operand } from "./elementwise.ts";

export const floorDivOp = /* @__PURE__ */ defineBinary<"floorDiv", "int">("floorDiv", {
  kinds: ["int"],
  apply: (a, b) => (b === 0 ? 0 : Math.floor(a / b)),
  vjp: { reason: "whole numbers have no gradient" },
});

/** floor(a / b) of whole numbers; by zero the result is not specified. Shapes broadcast. */
export function floorDiv(a: Operand<"int">, b: Operand<"int">): Tensor<"int"> {
  return applyOperands(floorDivOp, a, b);
}
