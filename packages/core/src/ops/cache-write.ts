import { sameShape, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { DataError, ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind, expectSameDType, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

export const cacheWriteOp = /* @__PURE__ */ definePrimitive<
  "cacheWrite",
  { readonly cache: Tensor<Kind>; readonly update: Tensor<Kind>; readonly start: Tensor<"int"> },
  Attributes,
  { value: Tensor<Kind> }
>({
  name: "cacheWrite",
  inputs: ["cache", "update", "start"],
  inPlace: "cache",
  infer({ cache, update, start }) {
    expectSameDType(cache, update);
    expectKind("start", start, "int");
    const rest = cache.shape.slice(2);
    const [batch] = cache.shape;
    const fits = update.shape.length === cache.shape.length && batch && update.shape[0]?.equals(batch);
    if (cache.shape.length < 2 || !fits || !sameShape(update.shape.slice(2), rest)) {
      throw new ShapeError(
        `expected a cache [B,C,...] and an update [B,T,...], got ${shapeText(cache.shape)} and ${shapeText(update.shape)}`,
      );
    }
    expectShape("start", start, ["B"], { B: batch });
    const [capacity, rows] = [cache.shape[1]?.value, update.shape[1]?.value];
    if (capacity !== undefined && rows !== undefined && rows > capacity) {
      throw new ShapeError(`expected an update of at most ${capacity} rows, got ${rows}`);
    }
    return { value: { dtype: cache.dtype, shape: cache.shape } };
  },
  reference({ cache, update, start }, _attributes, { value }) {
    const [batches = 0, capacity = 0, ...rest] = cache.shape;
    const row = rest.reduce((a, b) => a * b, 1);
    const rows = update.shape[1] ?? 0;
    value.data.set(cache.data);
    for (let batch = 0; batch < batches; batch++) {
      const from = start.data[batch] ?? 0;
      if (from < 0 || from + rows > capacity) {
        throw new DataError(`cacheWrite: expected rows within 0 to ${capacity - 1}, got ${from} to ${from + rows - 1}`);
      }
      const part = update.data.subarray(batch * rows * row, (batch + 1) * rows * row);
      value.data.set(part, (batch * capacity + from) * row);
    }
  },
  vjp: { reason: "caches are for inference" },
});

/**
 * Writes rows into a cache: value[b, start[b] + t] = update[b, t]; all other rows stay. Backends do it in place.
 *
 * @param cache  [B, C, ...]
 * @param update [B, T, ...]
 * @param start  int32 [B], with start + T <= C
 * @returns [B, C, ...]
 * @throws ShapeError where the shapes differ otherwise than in C and T, or T > C; DTypeError where the dtypes differ
 */
export function cacheWrite<K extends Kind>(cache: Tensor<K>, update: Tensor<K>, start: Tensor<"int">): Tensor<K> {
  return apply(cacheWriteOp, { cache, update, start }, {}).value as Tensor<K>;
}
