// Operations that are one ONNX node, or a few, applied element by element.

import {
  absOp,
  addOp,
  andOp,
  castOp,
  cosOp,
  divOp,
  equalOp,
  expOp,
  finiteOp,
  floorDivOp,
  floorOp,
  lessEqualOp,
  lessOp,
  log1pOp,
  logOp,
  maximumOp,
  minimumOp,
  mulOp,
  negOp,
  notOp,
  orOp,
  sigmoidOp,
  siluOp,
  sinOp,
  softplusOp,
  sqrtOp,
  subOp,
  tanhOp,
  whereOp,
} from "@sisa/core";
import { elementType } from "../element-type.ts";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

export const abs = lowering(absOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Abs", [x]) }));
export const cos = lowering(cosOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Cos", [x]) }));
export const exp = lowering(expOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Exp", [x]) }));
export const floor = lowering(floorOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Floor", [x]) }));
export const log = lowering(logOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Log", [x]) }));
export const neg = lowering(negOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Neg", [x]) }));
export const not = lowering(notOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Not", [x]) }));
export const sin = lowering(sinOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Sin", [x]) }));
export const softplus = lowering(softplusOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Softplus", [x]) }));
export const sqrt = lowering(sqrtOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Sqrt", [x]) }));
export const tanh = lowering(tanhOp, ({ emit, inputs: { x } }) => ({ value: emit.node("Tanh", [x]) }));

export const add = lowering(addOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Add", [a, b]) }));
export const and = lowering(andOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("And", [a, b]) }));
export const div = lowering(divOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Div", [a, b]) }));
export const equal = lowering(equalOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Equal", [a, b]) }));
export const less = lowering(lessOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Less", [a, b]) }));
export const lessEqual = lowering(lessEqualOp, ({ emit, inputs: { a, b } }) => ({
  value: emit.node("LessOrEqual", [a, b]),
}));
export const maximum = lowering(maximumOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Max", [a, b]) }));
export const minimum = lowering(minimumOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Min", [a, b]) }));
export const mul = lowering(mulOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Mul", [a, b]) }));
export const or = lowering(orOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Or", [a, b]) }));
export const sub = lowering(subOp, ({ emit, inputs: { a, b } }) => ({ value: emit.node("Sub", [a, b]) }));

/** By way of float64, which holds every int32: Div of int32 rounds towards zero and stops the process at a zero. */
export const floorDiv = lowering(floorDivOp, ({ emit, inputs: { a, b } }) => {
  const quotient = emit.node("Div", [emit.cast(a, "float64"), emit.cast(b, "float64")]);
  return { value: emit.cast(emit.node("Floor", [quotient]), "int32") };
});

/** From the exponential: Sigmoid of ONNX Runtime is a rational approximation that loses all digits below -15. */
export const sigmoid = lowering(sigmoidOp, ({ emit, inputs: { x } }) => {
  const grown = emit.node("Exp", [emit.node("Neg", [x])]);
  return { value: emit.node("Reciprocal", [emit.node("Add", [grown, emit.builder.float(1)])]) };
});

export const silu = lowering(siluOp, ({ emit, inputs: { x } }) => ({ value: emitSilu(emit, x) }));

/** x * sigmoid(x). */
export function emitSilu(emit: Emitter, x: Value): Value {
  return emit.dialect === "onnxruntime"
    ? emit.microsoft("QuickGelu", [x], { alpha: { float: 1 } })
    : emit.node("Mul", [x, emit.node("Sigmoid", [x])]);
}

/** log(u) * x / (u - 1) with u = 1 + x rounded: the rounding of u cancels. Where u is 1 or infinite, that is no number. */
export const log1p = lowering(log1pOp, ({ emit, inputs: { x } }) => {
  const one = emit.builder.float(1);
  const u = emit.node("Add", [x, one]);
  const logarithm = emit.node("Log", [u]);
  const excess = emit.node("Sub", [u, one]);
  const corrected = emit.node("Mul", [logarithm, emit.node("Div", [x, excess])]);
  const small = emit.node("Equal", [u, one]);
  const finite = emit.node("Where", [emit.node("IsInf", [u]), logarithm, corrected]);
  return { value: emit.node("Where", [small, x, finite]) };
});

export const finite = lowering(finiteOp, ({ emit, inputs: { x } }) => {
  const odd = emit.node("Or", [emit.node("IsNaN", [x]), emit.node("IsInf", [x])]);
  return { value: emit.node("Not", [odd]) };
});

/** Where has no kernel for truth values. */
export const where = lowering(whereOp, ({ emit, inputs: { condition, a, b }, specs }) => {
  if (specs.a.dtype !== "bool") return { value: emit.node("Where", [condition, a, b]) };
  const chosen = emit.node("And", [condition, a]);
  const other = emit.node("And", [emit.node("Not", [condition]), b]);
  return { value: emit.node("Or", [chosen, other]) };
});

export const cast = lowering(castOp, ({ emit, inputs: { x }, attributes: { dtype } }) => ({
  value: emit.cast(x, elementType(dtype)),
}));
