import { logSoftmaxOp, softmaxOp } from "@sisa/core";
import { lowering } from "../lowering.ts";

export const softmax = lowering(softmaxOp, ({ emit, inputs: { x } }) => ({
  value: emit.node("Softmax", [x], { axis: -1 }),
}));

export const logSoftmax = lowering(logSoftmaxOp, ({ emit, inputs: { x } }) => ({
  value: emit.node("LogSoftmax", [x], { axis: -1 }),
}));
