import { type DType, type Kind, kindOf } from "../dtype.ts";
import { apply, definePrimitive } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { DTypeOfKind, KindOfSpec } from "../spec.ts";

interface CastAttributes {
  readonly [name: string]: unknown;
  readonly dtype: DType;
}

export const castOp = /* @__PURE__ */ definePrimitive<
  "cast",
  { readonly x: Tensor<Kind> },
  CastAttributes,
  { value: Tensor<Kind> }
>({
  name: "cast",
  inputs: ["x"],
  elementwise: true,
  infer: ({ x }, { dtype }) => ({ value: { dtype, shape: x.shape } }),
  reference({ x }, { dtype }, { value }) {
    const kind = kindOf(dtype);
    const convert = kind === "int" ? Math.trunc : kind === "bool" ? (v: number) => (v === 0 ? 0 : 1) : (v: number) => v;
    for (let i = 0; i < value.data.length; i++) value.data[i] = convert(x.data[i] ?? 0);
  },
  vjp({ inputs: { x }, attributes, gradients }) {
    const bothFloat = kindOf(x.dtype) === "float" && kindOf(attributes.dtype) === "float";
    return bothFloat && gradients.value ? { x: cast(gradients.value, x.dtype) as Tensor } : {};
  },
});

/** x in another dtype. Floats become whole numbers by dropping the fraction; truth values become 0 and 1, and all but 0 is true. */
export function cast<D extends DType>(
  x: Tensor<Kind>,
  dtype: D,
): Tensor<KindOfSpec<{ dtype: D & DTypeOfKind<Kind>; shape: [] }>> {
  type Result = Tensor<KindOfSpec<{ dtype: D & DTypeOfKind<Kind>; shape: [] }>>;
  return (x.dtype === dtype ? x : apply(castOp, { x }, { dtype }).value) as Result;
}
