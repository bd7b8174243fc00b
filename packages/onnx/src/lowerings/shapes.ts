// Operations that move elements or describe shapes and compute nothing.

import {
  broadcastToOp,
  chunkOp,
  concatOp,
  constantOp,
  Dim,
  type DType,
  dimSizeOp,
  iotaOp,
  padOp,
  reshapeOp,
  sizesOf,
  sliceOp,
  type TypedArray,
  transposeOp,
  unchunkOp,
} from "@sisa/core";
import { elementType } from "../element-type.ts";
import { type Emitter, lowering, type Slot } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

export const broadcastTo = lowering(broadcastToOp, ({ emit, inputs: { x }, attributes: { shape } }) => ({
  value: emit.node("Expand", [x, emit.sizes.shape(shape)]),
}));

/** What was put one after another along the first axis. */
export const joinedRows: Slot<readonly Value[]> = { name: "joined rows" };

export const concat = lowering(concatOp, ({ emit, inputs, attributes: { axis } }) => {
  const parts = Object.values(inputs);
  const value = emit.node("Concat", parts, { axis });
  if (axis === 0) emit.keep(joinedRows, value, parts);
  return { value };
});

export const constant = lowering(constantOp, ({ emit, attributes: { spec, data } }) => ({
  value: emit.builder.constant(elementsOfType(spec.dtype, data), sizesOf(spec.shape), elementType(spec.dtype)),
}));

/** Numbers as elements of a dtype. */
function elementsOfType(dtype: DType, data: TypedArray): Float32Array | Int32Array | Uint8Array {
  switch (elementType(dtype)) {
    case "int32":
      return data instanceof Int32Array ? data : Int32Array.from(data);
    case "bool":
      return Uint8Array.from(data, (value) => (value ? 1 : 0));
    default:
      return data instanceof Float32Array ? data : Float32Array.from(data);
  }
}

export const dimSize = lowering(dimSizeOp, ({ emit, specs: { x }, attributes: { axis } }) => {
  const size = x.shape[axis] ?? Dim.of(0);
  if (size.value !== undefined) return { value: emit.builder.int32(size.value) };
  return { value: emit.cast(emitScalar(emit, size), "int32") };
});

/** A size as int64 without axes. */
function emitScalar(emit: Emitter, size: Dim): Value {
  return emit.node("Squeeze", [emit.sizes.size(size), emit.builder.int64(0)]);
}

export const iota = lowering(iotaOp, ({ emit, attributes: { length } }) => {
  if (length.value !== undefined) {
    const numbers = Int32Array.from({ length: length.value }, (_, index) => index);
    return { value: emit.builder.constant(numbers, [length.value]) };
  }
  const end = emit.cast(emitScalar(emit, length), "int32");
  return { value: emit.node("Range", [emit.builder.int32(0), end, emit.builder.int32(1)]) };
});

export const reshape = lowering(reshapeOp, ({ emit, inputs: { x }, specs, attributes: { shape } }) => ({
  value: emit.reshape(x, shape, specs.x.shape),
}));

export const slice = lowering(sliceOp, ({ emit, inputs: { x }, attributes: { axis, start, end } }) => ({
  value: emit.slice(x, axis, start, end),
}));

export const transpose = lowering(transposeOp, ({ emit, inputs: { x }, attributes: { permutation } }) => ({
  value: emit.transpose(x, permutation),
}));

export const pad = lowering(padOp, ({ emit, inputs: { x }, attributes: { axis, before, after } }) => ({
  value: emitPad(emit, x, axis, before, after),
}));

/** Zeros before and after along one axis. */
export function emitPad(emit: Emitter, x: Value, axis: number, before: Dim, after: Dim): Value {
  const [from, to] = [before.value, after.value];
  if (from === 0 && to === 0) return x;
  const amounts =
    from !== undefined && to !== undefined
      ? emit.builder.int64(from, to)
      : emit.node("Concat", [emit.sizes.size(before), emit.sizes.size(after)], { axis: 0 });
  return emit.node("Pad", [x, amounts, undefined, emit.builder.int64(axis)]);
}

export const chunk = lowering(chunkOp, ({ emit, inputs: { x }, specs, attributes: { axis, size }, outputs }) => {
  const length = specs.x.shape[axis] ?? Dim.of(0);
  const after = length.ceilDiv(size).times(size).minus(length);
  return { value: emit.reshape(emitPad(emit, x, axis, Dim.of(0), after), outputs.value.shape) };
});

export const unchunk = lowering(unchunkOp, ({ emit, inputs: { x }, specs, attributes: { axis, length }, outputs }) => {
  const chunks = specs.x.shape[axis] ?? Dim.of(0);
  const whole = chunks.times(specs.x.shape[axis + 1] ?? 1);
  const flat = emit.reshape(x, outputs.value.shape.with(axis, whole));
  return { value: whole.equals(length) ? flat : emit.slice(flat, axis, Dim.of(0), length) };
});
