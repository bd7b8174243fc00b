import { Dim, elementsOf, rmsNormBackwardOp, rmsNormOp } from "@sisa/core";
import { type Emitter, lowering, type Slot } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

/** 1 / sqrt(mean(x^2) + epsilon), for the backward pass. */
const inverseRoots: Slot<Value> = { name: "inverse roots" };

function keyOf(x: Value, epsilon: number): string {
  return `${x} ${epsilon}`;
}

/** ONNX Runtime's kernel also gives the inverse root, which the backward pass then does not compute again. */
function normalized(emit: Emitter, x: Value, weight: Value, epsilon: number): { value: Value; inverse: Value } {
  const settings = { axis: -1, epsilon: { float: epsilon } };
  const [value = x, inverse = x] = emit.nodes(2, "SimplifiedLayerNormalization", [x, weight], settings);
  return { value, inverse };
}

export const rmsNorm = lowering(rmsNormOp, ({ emit, inputs: { x, weight }, attributes: { epsilon } }) => {
  if (emit.dialect === "standard") {
    return { value: emit.node("RMSNormalization", [x, weight], { axis: -1, epsilon: { float: epsilon } }) };
  }
  const { value, inverse } = normalized(emit, x, weight, epsilon);
  emit.keep(inverseRoots, keyOf(x, epsilon), inverse);
  return { value };
});

/**
 * With r the inverse root and s = sum(g w x) over a row: dx = r g w - x r^3 s / M, and dw = sum over rows of r g x, which
 * is a matrix product.
 */
export const rmsNormBackward = lowering(
  rmsNormBackwardOp,
  ({ emit, inputs: { x, weight, gradient }, specs, attributes: { epsilon }, needs }) => {
    const { shape } = specs.x;
    const width = shape.at(-1) ?? Dim.of(1);
    const rows = elementsOf(shape.slice(0, -1));
    const inverse = emit.kept(inverseRoots, keyOf(x, epsilon)) ?? normalized(emit, x, weight, epsilon).inverse;
    const product = emit.node("Mul", [gradient, x]);

    const column = emit.reshape(weight, [width, Dim.of(1)]);
    const sum = emit.node("Mul", [emit.node("MatMul", [product, column]), inverse]);
    const share = emit.node("Div", [sum, meanDivisor(emit, width)]);
    const factor = emit.node("Mul", [share, emit.node("Mul", [inverse, inverse])]);
    const direct = emit.node("Mul", [emit.node("Mul", [gradient, inverse]), weight]);
    const dx = emit.node("Sub", [direct, emit.node("Mul", [x, factor])]);
    if (!needs.weight) return { x: dx };

    const flat = { value: emit.reshape(product, [rows, width]), rank: 2 };
    const roots = { value: emit.reshape(inverse, [rows, Dim.of(1)]), rank: 2 };
    const dw = emit.matmul(roots, flat, { transposeA: true });
    return { x: dx, weight: emit.reshape(dw, [width]) };
  },
  (_node, dialect) => dialect === "standard",
);

function meanDivisor(emit: Emitter, width: Dim): Value {
  return width.value === undefined ? emit.cast(emit.sizes.size(width), "float32") : emit.builder.float(width.value);
}
