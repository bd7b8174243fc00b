import { logSumExpOp } from "@sisa/core";
import { lowering } from "../lowering.ts";

/** As composed; a NaN that ReduceMax passes over comes back through the sum. */
export const logSumExp = lowering(logSumExpOp, ({ emit, inputs: { x }, specs }) => {
  const { builder } = emit;
  const last = builder.int64(specs.x.shape.length - 1);
  const largest = emit.node("ReduceMax", [x, last], { keepdims: 1 });
  const shifted = emit.node("Exp", [emit.node("Sub", [x, largest])]);
  const total = emit.node("ReduceSum", [shifted, last], { keepdims: 1 });
  return { value: emit.node("Add", [largest, emit.node("Log", [total])]) };
});
