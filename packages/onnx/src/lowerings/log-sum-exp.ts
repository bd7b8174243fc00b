import { logSumExpOp } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

/** What is subtracted before exponentials: zero in place of minus infinity. */
export function shiftOf(emit: Emitter, largest: Value): Value {
  const { builder } = emit;
  const isNothing = emit.node("Equal", [largest, builder.float(Number.NEGATIVE_INFINITY)]);
  return emit.node("Where", [isNothing, builder.float(0), largest]);
}

/** As composed; a NaN that ReduceMax passes over comes back through the sum. */
export const logSumExp = lowering(logSumExpOp, ({ emit, inputs: { x }, specs }) => {
  const { builder } = emit;
  const last = builder.int64(specs.x.shape.length - 1);
  const largest = emit.node("ReduceMax", [x, last], { keepdims: 1 });
  const shift = shiftOf(emit, largest);
  const shifted = emit.node("Exp", [emit.node("Sub", [x, shift])]);
  const total = emit.node("ReduceSum", [shifted, last], { keepdims: 1 });
  return { value: emit.node("Add", [shift, emit.node("Log", [total])]) };
});
