// A small SISA model, trained for ten steps in a page with @sisa/core and one backend.
import {
  f32,
  type GraphInputs,
  i32,
  initialize,
  languageModel,
  mul,
  parameterSpecs,
  preset,
  sub,
  type Tensor,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { webgpu as openBackend } from "@sisa/kernels-webgpu";

const sizes = { layers: 1, width: 16, heads: 2, stateWidth: 4, feedForwardWidth: 16, maximumLength: 64 };
const model = languageModel(preset("sisa", "1m", { vocabularySize: 32, ...sizes }));
const specs = parameterSpecs(model);
const names = Object.keys(specs);

/** Gradient descent: each parameter without a tenth of its gradient. */
const gradients = Object.fromEntries(names.map((name) => [`grad.${name}`, specs[name] ?? f32()]));
const descent = trace({ ...specs, ...gradients } as GraphInputs, (tensors) =>
  Object.fromEntries(
    names.map((name) => [name, sub(tensors[name] as Tensor, mul(tensors[`grad.${name}`] as Tensor, 0.1))]),
  ),
);

async function train(steps: number): Promise<{ readonly backend: string; readonly losses: readonly number[] }> {
  const backend = await openBackend();
  const differentiate = await backend.compile(valueAndGrad(model.lossGraph(), { wrt: names }).bind({ B: 2, T: 16 }));
  const descend = await backend.compile(descent, { state: Object.fromEntries(names.map((name) => [name, name])) });
  const text = Int32Array.from({ length: 34 }, (_, place) => (place * 7) % 32);
  const ids = backend.tensor(i32(2, 16), text.slice(0, 32));
  const targets = backend.tensor(i32(2, 16), text.slice(1, 33));
  const parameters = Object.fromEntries(
    Object.entries(initialize(model, 1)).map(([name, data]) => [name, backend.tensor(specs[name] ?? f32(), data)]),
  );
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const { value, ...slopes } = differentiate.run({ ...parameters, ids, targets });
    losses.push((await value.read())[0] ?? Number.NaN);
    descend.run({ ...parameters, ...slopes });
  }
  await backend.close();
  return { backend: backend.name, losses };
}

Object.assign(globalThis, { result: train(10) });
