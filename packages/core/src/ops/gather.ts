import { Dim } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { DataError, ShapeError } from "../errors.ts";
import { type Attributes, apply, definePrimitive, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { gradientDType } from "./cast.ts";
import { scatterAdd } from "./scatter-add.ts";

export const gatherOp = /* @__PURE__ */ definePrimitive<
  "gather",
  { readonly table: Tensor<Kind>; readonly ids: Tensor<"int"> },
  Attributes,
  { value: Tensor<Kind> }
>({
  name: "gather",
  inputs: ["table", "ids"],
  infer({ table, ids }) {
    expectKind("ids", ids, "int");
    if (table.shape.length === 0) throw new ShapeError("expected a table with at least one axis, got a scalar");
    return { value: { dtype: table.dtype, shape: [...ids.shape, ...table.shape.slice(1)] } };
  },
  reference({ table, ids }, _attributes, { value }) {
    const [rows = 0, ...rest] = table.shape;
    const row = rest.reduce((a, b) => a * b, 1);
    ids.data.forEach((id, place) => {
      checkId("gather", id, rows);
      value.data.set(table.data.subarray(id * row, (id + 1) * row), place * row);
    });
  },
  vjp({ inputs: { table, ids }, gradients }) {
    if (gradients.value === undefined) return {};
    return {
      table: scatterAdd(gradients.value, ids, {
        rows: table.shape[0] ?? Dim.of(0),
        dtype: gradientDType(table as Tensor),
      }),
    };
  },
});

/** @throws DataError */
export function checkId(op: string, id: number, rows: number): void {
  if (id < 0 || id >= rows) throw new DataError(`${op}: expected ids from 0 to ${rows - 1}, got ${id}`);
}

/**
 * Rows of a table: value[..., :] = table[ids[...], :].
 *
 * @param table [R, ...]
 * @param ids   int32 [...], from 0 to R - 1
 * @returns [...ids, ...rest of table]
 * @throws ShapeError where the table is a scalar; DTypeError unless ids are int32
 */
export function gather<K extends Kind>(table: Tensor<K>, ids: Tensor<"int">): Tensor<K> {
  return apply(gatherOp, { table, ids }, {}).value as Tensor<K>;
}
