import { type DimLike, elementsOf, shapeOf, sizeOf } from "../dim.ts";
import { type DType, kindOf } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, type OpInputs } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { type DTypeOfKind, type KindOfSpec, specText, type TensorSpec } from "../spec.ts";

interface ConstantAttributes {
  readonly [name: string]: unknown;
  readonly spec: TensorSpec;
  /** Elements as numbers, whatever the dtype. */
  readonly data: Float64Array | Float32Array | Int32Array | Uint8Array;
}

/** A value that is part of the graph. */
export const constantOp = /* @__PURE__ */ definePrimitive<
  "constant",
  OpInputs,
  ConstantAttributes,
  { value: Tensor<"float" | "int" | "bool"> }
>({
  name: "constant",
  inputs: [],
  infer(_inputs, { spec, data }) {
    const length = sizeOf(elementsOf(spec.shape));
    if (data.length !== length)
      throw new ShapeError(`expected ${length} elements for ${specText(spec)}, got ${data.length}`);
    return { value: spec };
  },
  reference(_inputs, { data }, { value }) {
    value.data.set(data);
  },
  vjp: { reason: "it does not depend on any input" },
});

type TensorOf<D extends DType> = Tensor<KindOfSpec<{ dtype: D & DTypeOfKind<"float" | "int" | "bool">; shape: [] }>>;

/**
 * A scalar that is part of the graph, or a tensor from numbers in row-major order.
 *
 * @param value one number, or all elements; truth values as 0 and 1
 * @param dtype default float32
 * @param shape default [] for a number, else [value.length]
 * @returns [...shape]
 * @throws ShapeError where the count of numbers does not fit the shape
 */
export function constant<D extends DType = "float32">(
  value: number | Float64Array | Float32Array | Int32Array | Uint8Array,
  dtype?: D,
  shape: readonly DimLike[] = typeof value === "number" ? [] : [value.length],
): TensorOf<D> {
  const spec: TensorSpec = { dtype: dtype ?? "float32", shape: shapeOf(shape) };
  const data = typeof value === "number" ? scalar(value, spec.dtype) : value;
  return apply(constantOp, {}, { spec, data }).value as TensorOf<D>;
}

/** In full: interpreters in float64 should not see a number that was rounded to float32 on the way. */
function scalar(value: number, dtype: DType): ConstantAttributes["data"] {
  return kindOf(dtype) === "float" ? Float64Array.of(value) : Int32Array.of(value);
}
