import { Dim, type DimLike } from "../dim.ts";
import { apply, definePrimitive, type OpInputs } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";

interface IotaAttributes {
  readonly [name: string]: unknown;
  readonly length: Dim;
}

export const iotaOp = /* @__PURE__ */ definePrimitive<"iota", OpInputs, IotaAttributes, { value: Tensor<"int"> }>({
  name: "iota",
  inputs: [],
  infer: (_inputs, { length }) => ({ value: { dtype: "int32", shape: [length] } }),
  reference(_inputs, _attributes, { value }) {
    for (let i = 0; i < value.data.length; i++) value.data[i] = i;
  },
  vjp: { reason: "it does not depend on any input" },
});

/**
 * 0, 1, 2, ..., length - 1.
 *
 * @returns int32 [length]
 * @throws ShapeError for a length below 0
 */
export function iota(length: DimLike): Tensor<"int"> {
  return apply(iotaOp, {}, { length: Dim.of(length) }).value;
}
