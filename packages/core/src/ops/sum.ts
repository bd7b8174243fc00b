import { apply, definePrimitive, expectKind } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { broadcastTo } from "./broadcast-to.ts";
import {
  keptShape,
  type ReduceAttributes,
  type ReduceOptions,
  reduceAttributes,
  reducedShape,
  reduceIndex,
} from "./reduce.ts";
import { reshape } from "./reshape.ts";

export const sumOp = /* @__PURE__ */ definePrimitive<
  "sum",
  { readonly x: Tensor<"float" | "int"> },
  ReduceAttributes,
  { value: Tensor<"float" | "int"> }
>({
  name: "sum",
  inputs: ["x"],
  infer({ x }, attributes) {
    expectKind("x", x, "float", "int");
    return { value: { dtype: x.dtype, shape: reducedShape(x.shape, attributes) } };
  },
  reference({ x }, attributes, { value }) {
    const index = reduceIndex(x.shape, attributes);
    for (let i = 0; i < x.data.length; i++) {
      const target = index(i);
      value.data[target] = (value.data[target] ?? 0) + (x.data[i] ?? 0);
    }
  },
  vjp({ inputs: { x }, attributes, gradients }) {
    if (gradients.value === undefined) return {};
    return { x: broadcastTo(reshape(gradients.value, keptShape(x.shape, attributes)), x.shape) };
  },
});

/** Sum over axes; over all of them where none are named. The sum of nothing is 0. */
export function sum<K extends "float" | "int" = "float">(x: Tensor<K>, options: ReduceOptions = {}): Tensor<K> {
  return apply(sumOp, { x }, reduceAttributes("sum", x.shape.length, options)).value as Tensor<K>;
}
