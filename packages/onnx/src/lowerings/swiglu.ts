import { swigluBackwardOp, swigluOp } from "@sisa/core";
import { lowering, type Slot } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { emitSilu } from "./elementwise.ts";

/** sigmoid and silu of a gate, for the backward pass. */
const activations: Slot<{ readonly sigmoid: Value; readonly silu: Value }> = { name: "activations" };

export const swiglu = lowering(swigluOp, ({ emit, inputs: { gate, up } }) => {
  if (!emit.has(swigluBackwardOp.name)) return { value: emit.node("Mul", [emitSilu(emit, gate), up]) };
  const sigmoid = emit.node("Sigmoid", [gate]);
  const silu = emit.node("Mul", [gate, sigmoid]);
  emit.keep(activations, gate, { sigmoid, silu });
  return { value: emit.node("Mul", [silu, up]) };
});

/** The slope of silu is s (1 + x - x s) with s = sigmoid(x). */
export const swigluBackward = lowering(swigluBackwardOp, ({ emit, inputs: { gate, up, gradient }, needs }) => {
  const saved = emit.kept(activations, gate);
  const sigmoid = saved?.sigmoid ?? emit.node("Sigmoid", [gate]);
  const silu = saved?.silu ?? emit.node("Mul", [gate, sigmoid]);
  const dUp = needs.up ? { up: emit.node("Mul", [gradient, silu]) } : {};
  if (!needs.gate) return dUp;
  const rise = emit.node("Sub", [emit.node("Add", [gate, emit.builder.float(1)]), silu]);
  const slope = emit.node("Mul", [sigmoid, rise]);
  return { gate: emit.node("Mul", [emit.node("Mul", [gradient, up]), slope]), ...dUp };
});
