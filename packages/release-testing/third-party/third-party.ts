// What somebody else writes who adds an operation, a layer, a model and a backend, with public interfaces alone.
import {
  apply,
  type Backend,
  defineComposite,
  definePrimitive,
  expandComposites,
  f32,
  type Layer,
  linear,
  mean,
  mul,
  normal,
  type ParametersOf,
  reference,
  type Tensor,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { lowering, onnxruntime } from "@sisa/onnx";

// An operation: a primitive with its own rule for ONNX, and a composite that needs none.

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
const cube = (x: Tensor): Tensor => apply(cubeOp, { x }, {}).value;

const fourthOp = defineComposite<"acme/fourth", { readonly x: Tensor }, Record<string, never>>({
  name: "acme/fourth",
  inputs: ["x"],
  compose: ({ x }) => ({ value: mul(cube(x), x) }),
});
const fourth = (x: Tensor): Tensor => apply(fourthOp, { x }, {}).value;

const cubeLowering = lowering(cubeOp, ({ emit, inputs: { x } }) => ({
  value: emit.node("Mul", [emit.node("Mul", [x, x]), x]),
}));

const graph = valueAndGrad(
  trace({ x: f32(3) }, ({ x }) => mean(fourth(x))),
  { wrt: ["x"] },
);

async function gradientOn(backend: Backend): Promise<number[]> {
  const program = await backend.compile(graph);
  const x = backend.tensor(f32(3), Float32Array.of(1, 2, 3));
  return Array.from(await program.run({ x })["grad.x"].read());
}

const expected = [4 / 3, 32 / 3, 36];
function check(name: string, found: readonly number[]): void {
  if (!found.every((value, index) => Math.abs(value - (expected[index] ?? 0)) < 1e-4)) {
    throw new Error(`${name}: expected ${expected}, got ${found}`);
  }
}

const onnx = await onnxruntime({ lowerings: { "acme/cube": cubeLowering } });
check("operation", await gradientOn(onnx));
console.log("operation ok");

// A layer, and a model of two of them.

class CubicLayer implements Layer {
  readonly parameters;
  constructor(width: number) {
    this.parameters = { weight: normal([width, width], 0.5) };
  }
  forward(p: ParametersOf<this>, x: Tensor): Tensor {
    return cube(linear(x, p.weight));
  }
}

const layer = new CubicLayer(4);
const model = trace({ x: f32("B", 4), weight: f32(4, 4) }, ({ x, weight }) => {
  const parameters = { weight };
  return mean(layer.forward(parameters, layer.forward(parameters, x)));
});
const step = await onnx.compile(valueAndGrad(model, { wrt: ["weight"] }));
const outputs = step.run({
  x: onnx.tensor(f32(2, 4), new Float32Array(8).fill(0.5)),
  weight: onnx.tensor(f32(4, 4), new Float32Array(16).fill(0.5)),
});
const loss = (await outputs.value.read())[0];
// (4 * 0.5 * 0.5)^3 = 1, and (4 * 1 * 0.5)^3 = 8.
if (Math.abs((loss ?? 0) - 8) > 1e-4) throw new Error(`model: expected 8, got ${loss}`);
console.log("layer and model ok");
await onnx.close();

// A backend: here one that expands every composite and counts what it compiles.

function counting(): Backend & { readonly compiled: number } {
  const inner = reference();
  let compiled = 0;
  const backend: Backend = {
    name: "acme/counting",
    limits: inner.limits,
    compile(given, options) {
      compiled++;
      return inner.compile(
        expandComposites(given, () => true),
        options,
      );
    },
    tensor: inner.tensor.bind(inner),
    write: inner.write.bind(inner),
    memory: inner.memory.bind(inner),
    close: inner.close.bind(inner),
    [Symbol.asyncDispose]: () => inner.close(),
  };
  return Object.defineProperty(backend, "compiled", { get: () => compiled }) as never;
}

const own = counting();
check("backend", await gradientOn(own));
if (own.compiled !== 1) throw new Error(`backend: expected one compilation, got ${own.compiled}`);
await own.close();
console.log("backend ok");
