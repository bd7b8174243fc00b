// What exported decoders do with caches whose heads come before time, as other runtimes lay them out, and their stock
// attention.

import {
  type Attributes,
  add,
  apply,
  DataError,
  Dim,
  defineComposite,
  definePrimitive,
  expectShape,
  matmul,
  mul,
  ShapeError,
  shapeText,
  softmax,
  type Tensor,
} from "@sisa/core";
import type { Lowerings } from "../lower.ts";
import { lowering } from "../lowering.ts";

const lastRowOp = /* @__PURE__ */ definePrimitive<"onnx/lastRow", { readonly cache: Tensor }, Attributes>({
  name: "onnx/lastRow",
  inputs: ["cache"],
  infer({ cache }) {
    if (cache.shape.length < 3) throw new ShapeError(`cache must be [B,H,P,...], got ${shapeText(cache.shape)}`);
    return { value: { dtype: cache.dtype, shape: cache.shape.toSpliced(2, 1) } };
  },
  reference({ cache }, _attributes, { value }) {
    const [batch = 0, heads = 0, rows = 0, ...rest] = cache.shape;
    const size = rest.reduce((a, b) => a * b, 1);
    if (rows === 0) return;
    for (let place = 0; place < batch * heads; place++) {
      const start = ((place + 1) * rows - 1) * size;
      value.data.set(cache.data.subarray(start, start + size), place * size);
    }
  },
  vjp: { reason: "caches are for inference" },
});

/**
 * The newest row of a growing cache, zeros where it is empty.
 *
 * @param cache [B,H,P,...]
 * @returns [B,H,...]
 */
export function lastRow(cache: Tensor): Tensor {
  return apply(lastRowOp, { cache }, {}).value;
}

const writeRowsOp = /* @__PURE__ */ definePrimitive<
  "onnx/writeRows",
  { readonly cache: Tensor; readonly update: Tensor; readonly start: Tensor<"int"> },
  Attributes
>({
  name: "onnx/writeRows",
  inputs: ["cache", "update", "start"],
  inPlace: "cache",
  infer({ cache, update, start }) {
    const [B = Dim.of(0), H = Dim.of(0), , ...rest] = cache.shape;
    expectShape("update", update, ["B", "H", "T", ...rest.map((_, axis) => `X${axis}`)], {
      B,
      H,
      ...Object.fromEntries(rest.map((size, axis) => [`X${axis}`, size])),
    });
    expectShape("start", start, ["B"], { B });
    return { value: { dtype: cache.dtype, shape: cache.shape } };
  },
  reference({ cache, update, start }, _attributes, { value }) {
    const [batch = 0, heads = 0, capacity = 0, ...rest] = cache.shape;
    const size = rest.reduce((a, b) => a * b, 1);
    const rows = update.shape[2] ?? 0;
    value.data.set(cache.data);
    for (let place = 0; place < batch * heads; place++) {
      const from = start.data[Math.floor(place / heads)] ?? 0;
      if (from < 0 || from + rows > capacity) {
        throw new DataError(`writeRows: expected rows within 0 to ${capacity - 1}, got ${from} to ${from + rows - 1}`);
      }
      const part = update.data.subarray(place * rows * size, (place + 1) * rows * size);
      value.data.set(part, (place * capacity + from) * size);
    }
  },
  vjp: { reason: "caches are for inference" },
});

/**
 * Writes rows into a cache of fixed capacity: value[b, :, start[b] + t] = update[b, :, t]; all other rows stay.
 *
 * @param cache  [B,H,C,...]
 * @param update [B,H,T,...]
 * @param start  int32 [B], with start + T <= C
 * @returns [B,H,C,...]
 */
export function writeRows(cache: Tensor, update: Tensor, start: Tensor<"int">): Tensor {
  return apply(writeRowsOp, { cache, update, start }, {}).value;
}

interface AttentionInputs {
  readonly [name: string]: Tensor;
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly mask: Tensor;
}

interface AttentionAttributes extends Attributes {
  readonly scale: number;
  readonly isStock: boolean;
}

const maskedAttentionOp = /* @__PURE__ */ defineComposite<"onnx/attention", AttentionInputs, AttentionAttributes>({
  name: "onnx/attention",
  inputs: ["q", "k", "v", "mask"],
  compose: ({ q, k, v, mask }, { scale }) => ({
    value: matmul(softmax(add(mul(matmul(q, k, { transposeB: true }), scale), mask)), v),
  }),
});

/**
 * Attention whose mask is given: softmax(scale * q k^T + mask) v
 *
 * @param inputs q [B,H,T,D], k [B,H,C,D], v [B,H,C,E]; mask broadcasts to [B,H,T,C] and is added
 * @param attributes.isStock as one call of ONNX's Attention, which fewer providers have a kernel for
 * @returns [B,H,T,E]
 */
export function maskedAttention(inputs: AttentionInputs, attributes: AttentionAttributes): Tensor {
  return apply(maskedAttentionOp, inputs, attributes).value;
}

export const decoderLowerings: Lowerings = {
  [maskedAttentionOp.name]: lowering(
    maskedAttentionOp,
    ({ emit, inputs: { q, k, v, mask }, attributes: { scale } }) => ({
      value: emit.node("Attention", [q, k, v, mask], { scale: { float: scale } }),
    }),
    ({ attributes }) => attributes.isStock !== true,
  ),
  // The sum of one row is the row, and that of none is zero.
  [lastRowOp.name]: lowering(lastRowOp, ({ emit, inputs: { cache } }) => {
    const { builder } = emit;
    const newest = emit.node("Slice", [cache, builder.int64(-1), builder.int64(2 ** 31 - 1), builder.int64(2)]);
    return { value: emit.sum(newest, [2], false) };
  }),
  // In place where the runtime gives input and output one buffer.
  [writeRowsOp.name]: lowering(writeRowsOp, ({ emit, inputs: { cache, update, start } }) => ({
    value: emit.node("TensorScatter", [cache, update, emit.cast(start, "int64")], { axis: 2, mode: "linear" }),
  })),
};
