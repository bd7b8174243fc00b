// Sums, maxima and running sums.

import { argmaxOp, cumulativeSumOp, maxOp, sumOp } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

/** Of no rows ArgMax keeps the axis, whatever it is told. */
export const argmax = lowering(argmaxOp, ({ emit, inputs: { x }, outputs }) => {
  const places = emit.node("ArgMax", [x], { axis: -1, keepdims: 1 });
  return { value: emit.reshape(emit.cast(places, "int32"), outputs.value.shape) };
});

/** ReduceMax passes over NaN where it reduces the last axis, so NaN is looked for and put back. */
export const max = lowering(maxOp, ({ emit, inputs: { x }, attributes: { axes, keepDims } }) => {
  const { builder } = emit;
  const settings = { keepdims: keepDims ? 1 : 0, noop_with_empty_axes: 1 };
  const largest = emit.node("ReduceMax", [x, builder.int64(...axes)], settings);
  const isNan = emit.cast(emit.node("IsNaN", [x]), "float32");
  const anyNan = emit.node("Greater", [
    emit.node("ReduceMax", [isNan, builder.int64(...axes)], settings),
    builder.float(0),
  ]);
  return { value: emit.node("Where", [anyNan, builder.float(Number.NaN), largest]) };
});

export const sum = lowering(sumOp, ({ emit, inputs: { x }, specs, attributes: { axes, keepDims } }) => ({
  value: emitSum(emit, x, specs.x.shape.length, axes, keepDims),
}));

/** One run of neighbouring axes at a time, from the last: ReduceSum over axes that lie apart is many times slower. */
export function emitSum(emit: Emitter, x: Value, rank: number, axes: readonly number[], keepDims: boolean): Value {
  if (axes.length === 0 || axes.length === rank) return emit.sum(x, axes, keepDims);
  const runs: number[][] = [];
  for (const axis of axes) {
    const run = runs.at(-1);
    if (run?.at(-1) === axis - 1) run.push(axis);
    else runs.push([axis]);
  }
  // Later axes go first, so that the numbers of the others stay as they are.
  return runs.reduceRight((value, run) => emit.sum(value, run, keepDims), x);
}

export const cumulativeSum = lowering(
  cumulativeSumOp,
  ({ emit, inputs: { x }, attributes: { axis, exclusive, reverse } }) => {
    const settings = { exclusive: exclusive ? 1 : 0, reverse: reverse ? 1 : 0 };
    return { value: emit.node("CumSum", [x, emit.builder.int64Scalar(axis)], settings) };
  },
);
