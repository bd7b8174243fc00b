import { adamwOp, globalNormOp } from "@sisa/core";
import { type Emitter, lowering, type Slot } from "../lowering.ts";
import type { GraphBuilder, Value } from "../model-proto.ts";

/**
 * The step inside an If, so that a step that must change nothing only copies, and one that proceeds pays nothing for
 * the choice. Scalars are folded first: with a = (1 - beta1) scale, b = (1 - beta2) scale^2,
 *
 *   m = beta1 m + a g;  v = beta2 v + b g^2
 *   p = p (1 - rate decay) - k m / (sqrt(v) + epsilon sqrt(c2)),  k = rate sqrt(c2) / c1
 */
export const adamw = lowering(adamwOp, ({ emit, inputs, specs, attributes }) => {
  const { beta1, beta2, epsilon, weightDecay } = attributes;
  const { builder } = emit;
  const scalar = (operator: string, a: Value, b: Value | number) => shared(emit, operator, a, b);
  const { learningRate, firstCorrection, secondCorrection, gradientScale } = inputs;
  const root = shared(emit, "Sqrt", secondCorrection);
  const a = scalar("Mul", gradientScale, 1 - beta1);
  const b = scalar("Mul", scalar("Mul", gradientScale, gradientScale), 1 - beta2);
  const k = scalar("Div", scalar("Mul", learningRate, root), firstCorrection);
  const floor = scalar("Mul", root, epsilon);
  const kept = weightDecay === 0 ? undefined : scalar("Add", scalar("Mul", learningRate, -weightDecay), 1);

  const { parameter, gradient, firstMoment, secondMoment } = inputs;
  const step = builder.subgraph();
  const op = (operator: string, ...operands: readonly Value[]) => step.node(operator, operands);
  const m = op("Add", op("Mul", firstMoment, builder.float(beta1)), op("Mul", gradient, a));
  const square = op("Mul", op("Mul", gradient, gradient), b);
  const v = op("Add", op("Mul", secondMoment, builder.float(beta2)), square);
  const direction = op("Div", m, op("Add", op("Sqrt", v), floor));
  const before = kept === undefined ? parameter : op("Mul", parameter, kept);
  const p = op("Sub", before, op("Mul", direction, k));

  const rest = builder.subgraph();
  const copies = [parameter, firstMoment, secondMoment].map((value) => rest.node("Identity", [value]));
  const axes = specs.parameter.shape.map((size) => size.value ?? size.toString());
  declare(step, [p, m, v], axes);
  declare(rest, copies, axes);
  const [newParameter, newFirst, newSecond] = emit.nodes(3, "If", [inputs.proceed], {
    then_branch: { graph: step },
    else_branch: { graph: rest },
  });
  if (newParameter === undefined || newFirst === undefined || newSecond === undefined) return {};
  return { parameter: newParameter, firstMoment: newFirst, secondMoment: newSecond };
});

function declare(graph: GraphBuilder, values: readonly Value[], axes: readonly (number | string)[]): void {
  for (const value of values) graph.output(value, "float32", axes);
}

const scalars: Slot<Value> = { name: "scalars" };

/** A scalar computation that all parameters have in common is done once. */
function shared(emit: Emitter, operator: string, a: Value, b?: Value | number): Value {
  const operand = typeof b === "number" ? emit.builder.float(b) : b;
  const key = `${operator} ${a} ${operand}`;
  const known = emit.kept(scalars, key);
  return known ?? emit.keep(scalars, key, emit.node(operator, operand === undefined ? [a] : [a, operand]));
}

export const globalNorm = lowering(globalNormOp, ({ emit, inputs }) => {
  const squares = Object.values(inputs).map((x) => emit.node("ReduceSumSquare", [x], { keepdims: 0 }));
  return { value: emit.node("Sqrt", [squares.length === 1 ? (squares[0] ?? "") : emit.node("Sum", squares)]) };
});
