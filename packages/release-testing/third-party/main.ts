// Trains the model on the reference, on two backends that were taught the operation, and on the third party's own.
import {
  type Backend,
  evaluate,
  f32,
  type GraphInputs,
  initialize,
  mean,
  mul,
  parameterSpecs,
  RandomStream,
  reference,
  sub,
  type Tensor,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { webgpu } from "@sisa/kernels-webgpu";
import { onnxruntime } from "@sisa/onnx";
import { cube, onnxLowerings, webgpuLowerings } from "./cube.ts";
import { CubicModel } from "./cubic-model.ts";
import { plain } from "./plain-backend.ts";

/** The gradient of mean(cube(x)) beside finite differences, in float64. */
function largestGradientError(): number {
  const graph = trace({ x: f32(3) }, ({ x }) => mean(cube(x)));
  const gradient = valueAndGrad(graph, { wrt: ["x"] });
  const at = (x: readonly number[]) => ({ x: { shape: [3], data: Float64Array.from(x) } });
  const x = [-1.5, 0.5, 2];
  const found = evaluate(gradient, at(x))["grad.x"]?.data ?? [];
  const step = 1e-5;
  const errors = x.map((_, index) => {
    const moved = (by: number) =>
      evaluate(graph, at(x.map((value, i) => value + (i === index ? by : 0)))).value?.data[0] ?? 0;
    return Math.abs((moved(step) - moved(-step)) / (2 * step) - (found[index] ?? Number.NaN));
  });
  return Math.max(...errors);
}

const model = new CubicModel({ width: 4, layers: 2 });
const specs = parameterSpecs(model);
const names = Object.keys(specs);

/** Gradient descent, with the parameters as state. */
const gradients = Object.fromEntries(names.map((name) => [`grad.${name}`, specs[name] ?? f32()]));
const descent = trace({ ...specs, ...gradients } as GraphInputs, (tensors) =>
  Object.fromEntries(
    names.map((name) => [name, sub(tensors[name] as Tensor, mul(tensors[`grad.${name}`] as Tensor, 0.2))]),
  ),
);

/** Losses of ten steps towards the sum of the inputs. */
async function train(
  backend: Backend,
): Promise<{ readonly losses: readonly number[]; readonly deviceBytes: readonly number[] }> {
  const differentiate = await backend.compile(valueAndGrad(model.lossGraph(), { wrt: names }).bind({ B: 8 }));
  const descend = await backend.compile(descent, { state: Object.fromEntries(names.map((name) => [name, name])) });
  const numbers = new RandomStream(1, "data").normal(32, { deviation: 0.4 });
  const x = backend.tensor(f32(8, 4), numbers);
  const target = backend.tensor(
    f32(8, 1),
    Float32Array.from({ length: 8 }, (_, row) => numbers.slice(4 * row, 4 * row + 4).reduce((a, b) => a + b) / 2),
  );
  const parameters = Object.fromEntries(
    Object.entries(initialize(model, 1)).map(([name, data]) => [name, backend.tensor(specs[name] ?? f32(), data)]),
  );
  const losses: number[] = [];
  const deviceBytes: number[] = [];
  for (let step = 0; step < 10; step++) {
    const { value, ...slopes } = differentiate.run({ ...parameters, x, target });
    losses.push((await value.read())[0] ?? Number.NaN);
    descend.run({ ...parameters, ...slopes });
    deviceBytes.push(backend.memory().deviceBytes);
  }
  return { losses, deviceBytes };
}

const own = plain();
const backends = [
  reference(),
  await onnxruntime({ lowerings: onnxLowerings }),
  await webgpu({ lowerings: webgpuLowerings }),
  own,
];
const runs = [];
for (const backend of backends) {
  runs.push({ backend: backend.name, ...(await train(backend)) });
  await backend.close();
}
console.log(JSON.stringify({ gradientError: largestGradientError(), ownCubes: own.cubes, runs }));
