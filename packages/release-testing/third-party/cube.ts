// Operations of somebody else: a primitive, with what backends need to know of it, and a composite, which needs nothing.
import { apply, defineComposite, definePrimitive, mul, type Tensor } from "@sisa/core";
import { pointwise } from "@sisa/kernels-webgpu";
import { lowering } from "@sisa/onnx";

const cubeOp = definePrimitive<"acme/cube", { readonly x: Tensor }, Record<string, never>>({
  name: "acme/cube",
  inputs: ["x"],
  elementwise: true,
  infer: ({ x }) => ({ value: { dtype: x.dtype, shape: x.shape } }),
  reference({ x }, _attributes, { value }) {
    x.data.forEach((element, index) => {
      value.data[index] = element ** 3;
    });
  },
  vjp: ({ inputs: { x }, gradients }) => ({ x: gradients.value && mul(mul(mul(x, x), 3), gradients.value) }),
});

/** x^3 of each element. */
export const cube = (x: Tensor): Tensor => apply(cubeOp, { x }, {}).value;

const fourthOp = defineComposite<"acme/fourth", { readonly x: Tensor }, Record<string, never>>({
  name: "acme/fourth",
  inputs: ["x"],
  compose: ({ x }) => ({ value: mul(cube(x), x) }),
});

/** x^4 of each element. */
export const fourth = (x: Tensor): Tensor => apply(fourthOp, { x }, {}).value;

/** For `onnxruntime({ lowerings })`. */
export const onnxLowerings = {
  "acme/cube": lowering(cubeOp, ({ emit, inputs: { x } }) => ({
    value: emit.node("Mul", [emit.node("Mul", [x, x]), x]),
  })),
};

/** For `webgpu({ lowerings })`. */
export const webgpuLowerings = { "acme/cube": pointwise(([x]) => `${x} * ${x} * ${x}`) };
