// Running sums that stay exact over long sequences: float64 inside, float32 outside.

import { blockCumulativeSumOp, cumulativePhaseOp, Dim, type Shape } from "@sisa/core";
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
 * From any position: the sum of all earlier rows, less that at the first row of the same block, in float64 so that the
 * difference is exact; rows of the block that was begun before continue its sum.
 */
function continued(emit: Emitter, x: Value, before: Value, start: Value, shape: Shape, size: number): Value {
  const { builder, sizes } = emit;
  const one = Dim.of(1);
  const [batch = one, length = one, ...rest] = shape;
  const ones = rest.map(() => one);
  const origin = emit.reshape(start, [batch, one]);
  const row = emit.node("Squeeze", [sizes.size(length), builder.int64(0)]);
  const rows = emit.node("Range", [builder.int64Scalar(0), row, builder.int64Scalar(1)]);
  const position = emit.node("Add", [emit.cast(origin, "int64"), rows]);
  // Positions are not negative, so the quotient is rounded down.
  const blockStart = emit.node("Mul", [
    emit.node("Div", [position, builder.int64Scalar(size)]),
    builder.int64Scalar(size),
  ]);
  const offset = emit.node("Sub", [blockStart, emit.cast(origin, "int64")]);
  const first = emit.node("Max", [offset, builder.int64Scalar(0)]);

  const settings = { exclusive: 1 };
  const earlier = emit.node("CumSum", [emit.cast(x, "float64"), builder.int64Scalar(1)], settings);
  const indices = emit.node("Expand", [emit.reshape(first, [batch, length, ...ones]), sizes.shape(shape)]);
  const atFirst = emit.node("GatherElements", [earlier, indices], { axis: 1 });
  const own = emit.node("Add", [emit.cast(emit.node("Sub", [earlier, atFirst]), "float32"), x]);

  // A block that began before the first row has a negative offset.
  const begun = emit.cast(emit.node("Less", [offset, builder.int64Scalar(0)]), "float32");
  const carried = emit.node("Mul", [
    emit.reshape(begun, [batch, length, ...ones]),
    emit.reshape(before, [batch, one, ...rest]),
  ]);
  return emit.node("Add", [own, carried]);
}
