import { cacheWriteOp, Dim, elementsOf, gatherOp, scatterAddOp, type TensorSpec, takeRowOp } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";

const one = Dim.of(1);

export const gather = lowering(gatherOp, ({ emit, inputs: { table, ids } }) => ({
  value: emit.node("Gather", [table, notNegative(emit, ids)], { axis: 0 }),
}));

/** ONNX counts negative ids from the end. Made too large, they are refused like all that are not there. */
export function notNegative(emit: Emitter, ids: Value): Value {
  const { builder } = emit;
  return emit.node("Where", [emit.node("Less", [ids, builder.int32(0)]), builder.int32(2 ** 31 - 1), ids]);
}

/**
 * ScatterElements adds in the order of its indices, on one thread. ScatterND would spread rows over threads and add
 * those of one id in no order.
 */
export const scatterAdd = lowering(scatterAddOp, ({ emit, inputs: { updates, ids }, specs, outputs }) => {
  const { builder, sizes } = emit;
  const rest = outputs.value.shape.slice(1);
  const zeros = emit.node("Expand", [builder.float(0), sizes.shape(outputs.value.shape)]);
  if (rest.some((size) => size.equals(0))) return { value: zeros };
  // All ids as one axis in front: [N, ...rest].
  const count = elementsOf(specs.ids.shape);
  const shape = [count, ...rest];
  const places = emit.reshape(notNegative(emit, ids), [count, ...rest.map(() => Dim.of(1))]);
  const indices = emit.node("Expand", [places, sizes.shape(shape)]);
  const values = emit.reshape(updates, shape);
  return { value: emit.node("ScatterElements", [zeros, indices, values], { axis: 0, reduction: "add" }) };
});

/** Writes in place where the runtime gives input and output one buffer, else into a copy. */
export const cacheWrite = lowering(cacheWriteOp, ({ emit, inputs: { cache, update, start, pages }, specs }) => {
  if (!pages) {
    const from = emit.cast(start, "int64");
    return { value: emit.node("TensorScatter", [cache, update, from], { axis: 1, mode: "linear" }) };
  }
  const [B = one, T = one] = specs.update.shape;
  const { builder, sizes } = emit;
  const end = emit.node("Squeeze", [emit.cast(sizes.size(T), "int32")]);
  const rows = emit.node("Range", [builder.int32(0), end, builder.int32(1)]);
  const positions = emit.node("Add", [emit.reshape(start, [B, one]), rows]);
  return { value: emit.node("ScatterND", [cache, placesInPages(emit, positions, pages, [B, T], specs.cache), update]) };
});

/** Page, and row within it, of positions [B,T] of sequences: int64 [B,T,2]. */
function placesInPages(
  emit: Emitter,
  positions: Value,
  pages: Value,
  [B, T]: readonly [Dim, Dim],
  pool: TensorSpec,
): Value {
  const size = emit.cast(emit.sizes.size(pool.shape[1] ?? one), "int32");
  const checked = notNegative(emit, positions);
  const each = (x: Value) => emit.cast(emit.reshape(x, [B, T, one]), "int64");
  const page = emit.node("GatherND", [pages, each(emit.node("Div", [checked, size]))], { batch_dims: 1 });
  return emit.node("Concat", [each(notNegative(emit, page)), each(emit.node("Mod", [checked, size]))], { axis: -1 });
}

/** GatherND with one batch axis: a row of each entry, whatever its shape. */
export const takeRow = lowering(takeRowOp, ({ emit, inputs: { x, row, pages }, specs }) => {
  const [batch = one] = specs.row.shape;
  if (pages) {
    const places = placesInPages(emit, row, pages, [batch, one], specs.x);
    return { value: emit.node("GatherND", [x, emit.node("Squeeze", [places, emit.builder.int64(1)])]) };
  }
  const indices = emit.cast(emit.reshape(notNegative(emit, row), [batch, one]), "int64");
  return { value: emit.node("GatherND", [x, indices], { batch_dims: 1 }) };
});
