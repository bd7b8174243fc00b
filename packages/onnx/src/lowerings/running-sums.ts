// Running sums that stay exact over long sequences: float64 inside, float32 outside.

import { blockCumulativeSumOp, cumulativePhaseOp, Dim, elementsOf, type Shape } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { emitPad } from "./shapes.ts";

export const cumulativePhase = lowering(cumulativePhaseOp, ({ emit, inputs: { x, before }, specs }) => {
  const { builder } = emit;
  const sums = emit.node("CumSum", [emit.cast(x, "float64"), builder.int64Scalar(1)]);
  const total = before
    ? emit.node("Add", [sums, emit.cast(emit.reshape(before, specs.x.shape.with(1, Dim.of(1))), "float64")])
    : sums;
  const turns = emit.node("Floor", [emit.node("Mul", [total, builder.double(1 / (2 * Math.PI))])]);
  const whole = emit.node("Mul", [turns, builder.double(2 * Math.PI)]);
  return { value: emit.cast(emit.node("Sub", [total, whole]), "float32") };
});

export const blockCumulativeSum = lowering(
  blockCumulativeSumOp,
  ({ emit, inputs: { x, before, start }, specs, attributes: { size, reverse } }) => {
    const { shape } = specs.x;
    return before !== undefined && start !== undefined
      ? { value: continued(emit, x, before, start, shape, size) }
      : { value: aligned(emit, x, shape, size, reverse) };
  },
);

/** From position 0: blocks become an axis of their own. */
function aligned(emit: Emitter, x: Value, shape: Shape, size: number, reverse: boolean): Value {
  const zero = Dim.of(0);
  const [batch = zero, length = zero, ...rest] = shape;
  const blocks = length.ceilDiv(size);
  const whole = blocks.times(size);
  const padded = emitPad(emit, x, 1, zero, whole.minus(length));
  const split = emit.reshape(padded, [batch, blocks, Dim.of(size), ...rest]);
  const sums = emit.node("CumSum", [split, emit.builder.int64Scalar(2)], { reverse: reverse ? 1 : 0 });
  const flat = emit.reshape(sums, [batch, whole, ...rest]);
  return whole.equals(length) ? flat : emit.slice(flat, 1, zero, length);
}

/**
 * From any position: each row sums those before it in its block by a matrix product, and rows of the block that was begun
 * before add its sum. Which rows belong together depends on the start alone, and is found out once for all layers.
 */
function continued(emit: Emitter, x: Value, before: Value, start: Value, shape: Shape, size: number): Value {
  const { builder, sizes } = emit;
  const one = Dim.of(1);
  const [batch = one, length = one, ...rest] = shape;
  const width = elementsOf(rest);
  const count = emit.cast(emit.node("Squeeze", [sizes.size(length), builder.int64(0)]), "int32");
  const rows = emit.node("Range", [builder.int32(0), count, builder.int32(1)]);
  const origin = emit.reshape(start, [batch, one]);
  // Positions are not negative, so the quotient is rounded down.
  const divisor = builder.int32(size);
  const blocks = emit.node("Div", [emit.node("Add", [origin, rows]), divisor]); // [B,T]
  const column = emit.reshape(blocks, [batch, length, one]);
  const sameBlock = emit.node("Equal", [column, emit.reshape(blocks, [batch, one, length])]);
  const isBefore = emit.node("LessOrEqual", [rows, emit.reshape(rows, [length, one])]);
  const summed = emit.cast(emit.node("And", [sameBlock, isBefore]), "float32"); // [B,T,T]
  const own = emit.node("MatMul", [summed, emit.reshape(x, [batch, length, width], shape)]);

  const isWithin = emit.node("Less", [emit.node("Mul", [column, divisor]), emit.reshape(start, [batch, one, one])]);
  const begun = emit.cast(isWithin, "float32"); // [B,T,1]
  const carried = emit.node("Mul", [begun, emit.reshape(before, [batch, one, width], shape.toSpliced(1, 1))]);
  return emit.reshape(emit.node("Add", [own, carried]), shape, [batch, length, width]);
}
