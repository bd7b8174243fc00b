import { bytesOf, type DType, type Kind, kindOf } from "../dtype.ts";
import { apply, definePrimitive } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { DTypeOfKind, KindOfSpec, TensorSpec } from "../spec.ts";

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

/** float32 for floats that are narrower, else their own dtype: what sums, norms and exponentials are taken in. */
export function wideDType({ dtype }: TensorSpec<"float">): DTypeOfKind<"float"> {
  return dtype === "float16" || dtype === "bfloat16" ? "float32" : dtype;
}

/** x, widened to float32 where it is narrower. */
export function wide(x: Tensor): Tensor {
  return cast(x, wideDType(x)) as Tensor;
}

/**
 * The dtype of gradients by a tensor: its own, but for a narrowed copy, such as the bfloat16 copy of a parameter, that
 * of what was narrowed. So a gradient is never rounded on its way to a parameter.
 */
export function gradientDType<K extends Kind>(x: Tensor<K>): Tensor<K>["dtype"] {
  const source = x.node.op.name === castOp.name ? x.node.inputs.x : undefined;
  if (source === undefined || kindOf(source.dtype) !== "float") return x.dtype;
  const dtype = gradientDType(source) as Tensor<K>["dtype"];
  return bytesOf(dtype) > bytesOf(x.dtype) ? dtype : x.dtype;
}

/**
 * x in another dtype. Floats become whole numbers by dropping the fraction, and are rounded to narrower floats, ties to
 * even; truth values become 0 and 1, and all but 0 is true.
 *
 * @param x [...] of any dtype
 * @returns [...]; x itself where it has the dtype already
 */
export function cast<D extends DType>(
  x: Tensor<Kind>,
  dtype: D,
): Tensor<KindOfSpec<{ dtype: D & DTypeOfKind<Kind>; shape: [] }>> {
  type Result = Tensor<KindOfSpec<{ dtype: D & DTypeOfKind<Kind>; shape: [] }>>;
  return (x.dtype === dtype ? x : apply(castOp, { x }, { dtype }).value) as Result;
}
