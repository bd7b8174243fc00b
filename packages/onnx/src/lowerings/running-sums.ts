// Running sums that stay exact over long sequences: float64 inside, float32 outside.

import { blockCumulativeSumOp, cumulativePhaseOp, Dim, elementsOf, type Shape } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { emitPad } from "./shapes.ts";

const turn = 2 * Math.PI;

/** Steps of a turn on which continued angles lie. Such angles, being below 7, are told apart in float32. */
const steps = 2 ** 23;

/**
 * Where a sum is continued, angles are rounded to steps of a turn, by at most 3.8e-7 rad each: sums of whole numbers are
 * exact, so that a token's angle has the same bits however the tokens before it were cut into runs.
 */
export const cumulativePhase = lowering(cumulativePhaseOp, ({ emit, inputs: { x, before }, specs }) => {
  const { builder } = emit;
  const wide = emit.cast(x, "float64");
  const period = before === undefined ? turn : steps;
  const onGrid = (angles: Value) => emit.node("Round", [emit.node("Mul", [angles, builder.double(steps / turn)])]);
  const sums = emit.node("CumSum", [before === undefined ? wide : onGrid(wide), builder.int64Scalar(1)]);
  const carried = before && emit.cast(emit.reshape(before, specs.x.shape.with(1, Dim.of(1))), "float64");
  const total = carried ? emit.node("Add", [sums, onGrid(carried)]) : sums;
  const turns = emit.node("Floor", [emit.node("Mul", [total, builder.double(1 / period)])]);
  const rest = emit.node("Sub", [total, emit.node("Mul", [turns, builder.double(period)])]);
  return { value: emit.cast(before ? emit.node("Mul", [rest, builder.double(turn / steps)]) : rest, "float32") };
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
 * From any position: each row sums those before it in its block by a matrix product, the sum of the block that was begun
 * before in front of them. Products add in the order of the rows, so that each sum is the one before it plus one row,
 * rounded, however the rows were cut into runs. Which rows belong together depends on the start alone, and is found out
 * once for all layers.
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
  const own = emit.node("And", [sameBlock, isBefore]); // [B,T,T]
  const begun = emit.node("Less", [emit.node("Mul", [column, divisor]), emit.reshape(start, [batch, one, one])]);
  const summed = emit.cast(emit.node("Concat", [begun, own], { axis: 2 }), "float32"); // [B,T,1+T]

  const carried = emit.reshape(before, [batch, one, width], shape.toSpliced(1, 1));
  const terms = emit.node("Concat", [carried, emit.reshape(x, [batch, length, width], shape)], { axis: 1 });
  return emit.reshape(emit.node("MatMul", [summed, terms]), shape, [batch, length, width]);
}
