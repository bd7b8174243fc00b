import { Dim, sameShape, shapeText } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { DataError, ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind, expectSameDType, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { checkId } from "./gather.ts";

export const cacheWriteOp = /* @__PURE__ */ definePrimitive<
  "cacheWrite",
  {
    readonly cache: Tensor<Kind>;
    readonly update: Tensor<Kind>;
    readonly start: Tensor<"int">;
    readonly pages?: Tensor<"int"> | undefined;
  },
  Attributes,
  { value: Tensor<Kind> }
>({
  name: "cacheWrite",
  inputs: ["cache", "update", "start", "pages?"],
  inPlace: "cache",
  infer({ cache, update, start, pages }) {
    expectSameDType(cache, update);
    expectKind("start", start, "int");
    if (pages) expectKind("pages", pages, "int");
    const rest = cache.shape.slice(2);
    const [batch] = update.shape;
    const fits = update.shape.length === cache.shape.length && batch && (pages || cache.shape[0]?.equals(batch));
    if (cache.shape.length < 2 || !fits || !sameShape(update.shape.slice(2), rest)) {
      throw new ShapeError(
        `expected a cache [${pages ? "N,P" : "B,C"},...] and an update [B,T,...], got ${shapeText(cache.shape)} and ${shapeText(update.shape)}`,
      );
    }
    expectShape("start", start, ["B"], { B: batch });
    const size = cache.shape[1] ?? Dim.of(0);
    const { M = Dim.of(1) } = pages ? expectShape("pages", pages, ["B", "M"], { B: batch }) : {};
    const [capacity, rows] = [size.times(M).value, update.shape[1]?.value];
    if (capacity !== undefined && rows !== undefined && rows > capacity) {
      throw new ShapeError(`expected an update of at most ${capacity} rows, got ${rows}`);
    }
    return { value: { dtype: cache.dtype, shape: cache.shape } };
  },
  reference({ cache, update, start, pages }, _attributes, { value }) {
    const [count = 0, size = 0, ...rest] = cache.shape;
    const row = rest.reduce((a, b) => a * b, 1);
    const [batches = 0, rows = 0] = update.shape;
    const perSequence = pages ? (pages.shape[1] ?? 0) : 1;
    const capacity = perSequence * size;
    value.data.set(cache.data);
    for (let batch = 0; batch < batches; batch++) {
      const from = start.data[batch] ?? 0;
      if (from < 0 || from + rows > capacity) {
        throw new DataError(`cacheWrite: expected rows within 0 to ${capacity - 1}, got ${from} to ${from + rows - 1}`);
      }
      for (let index = 0; index < rows; index++) {
        const position = from + index;
        const place = batch * perSequence + Math.floor(position / size);
        const page = pages ? (pages.data[place] ?? 0) : place;
        checkId("cacheWrite", page, count);
        const first = (batch * rows + index) * row;
        value.data.set(update.data.subarray(first, first + row), (page * size + (position % size)) * row);
      }
    }
  },
  vjp: { reason: "caches are for inference" },
});

/**
 * Writes rows into a cache: value[b, start[b] + t] = update[b, t]; all other rows stay. Backends do it in place.
 *
 * With `pages` the cache is one pool of pages of P rows: row p of sequence b is row p mod P of page pages[b, p / P]. No
 * two sequences may write to one row.
 *
 * @param cache  [B, C, ...], or [N, P, ...] in pages
 * @param update [B, T, ...]
 * @param start  int32 [B], with start + T <= C (M P in pages)
 * @param pages  int32 [B, M], from 0 to N - 1; default none
 * @returns as the cache
 * @throws ShapeError where the shapes differ otherwise than in C and T, or T > C; DTypeError where the dtypes differ
 */
export function cacheWrite<K extends Kind>(
  cache: Tensor<K>,
  update: Tensor<K>,
  start: Tensor<"int">,
  pages?: Tensor<"int">,
): Tensor<K> {
  return apply(cacheWriteOp, { cache, update, start, pages }, {}).value as Tensor<K>;
}
