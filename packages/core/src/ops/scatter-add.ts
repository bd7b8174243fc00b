import { Dim, type DimLike, sameShape, shapeText } from "../dim.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { DTypeOfKind } from "../spec.ts";
import { checkId, gather } from "./gather.ts";

interface ScatterAddAttributes {
  readonly [name: string]: unknown;
  readonly rows: Dim;
  /** dtype of the sums; that of the updates where left out. */
  readonly dtype?: DTypeOfKind<"float"> | undefined;
}

export const scatterAddOp = /* @__PURE__ */ definePrimitive<
  "scatterAdd",
  { readonly updates: Tensor; readonly ids: Tensor<"int"> },
  ScatterAddAttributes
>({
  name: "scatterAdd",
  inputs: ["updates", "ids"],
  infer({ updates, ids }, { rows, dtype }) {
    expectKind("updates", updates, "float");
    expectKind("ids", ids, "int");
    const rank = ids.shape.length;
    if (!sameShape(updates.shape.slice(0, rank), ids.shape)) {
      throw new ShapeError(
        `expected updates that begin with the shape of ids ${shapeText(ids.shape)}, got ${shapeText(updates.shape)}`,
      );
    }
    return { value: { dtype: dtype ?? updates.dtype, shape: [rows, ...updates.shape.slice(rank)] } };
  },
  reference({ updates, ids }, _attributes, { value }) {
    const [rows = 0, ...rest] = value.shape;
    const row = rest.reduce((a, b) => a * b, 1);
    ids.data.forEach((id, place) => {
      checkId("scatterAdd", id, rows);
      for (let i = 0; i < row; i++) {
        value.data[id * row + i] = (value.data[id * row + i] ?? 0) + (updates.data[place * row + i] ?? 0);
      }
    });
  },
  vjp: ({ inputs: { ids }, gradients }) => ({ updates: gradients.value && gather(gradients.value, ids) }),
});

/**
 * Adds rows into a table of zeros: value[ids[...], :] += updates[..., :]. Rows are added in the order of ids, so that
 * the result is the same every time.
 *
 * @param updates [...ids, ...]
 * @param ids     int32, from 0 to rows - 1
 * @param options.rows  rows of the table
 * @param options.dtype dtype of the sums; default that of updates
 * @returns [rows, ...]
 * @throws ShapeError unless updates begin with the shape of ids; DTypeError unless updates are floats and ids int32
 */
export function scatterAdd(
  updates: Tensor,
  ids: Tensor<"int">,
  options: { readonly rows: DimLike; readonly dtype?: DTypeOfKind<"float"> },
): Tensor {
  const { rows, dtype } = options;
  const own = dtype === undefined || dtype === updates.dtype ? {} : { dtype };
  return apply(scatterAddOp, { updates, ids }, { rows: Dim.of(rows), ...own }).value;
}
