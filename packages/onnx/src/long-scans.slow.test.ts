// State space mixers over 8192 tokens as they run, chunk by chunk in float32, against their recurrence in float64.

import {
  type Backend,
  f32,
  Mamba2Mixer,
  Mamba3Mixer,
  type Mixer,
  parameterSpecs,
  type Tensor,
  trace,
} from "@sisa/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mamba2, mamba3, noise, type Row, range, type Weights, weightsOf } from "../../core/src/layers/testing.ts";
import { onnxruntime } from "./index.ts";

const T = 8192;
const width = 6;

let backend: Backend;
beforeAll(async () => {
  backend = await onnxruntime();
});
afterAll(() => backend.close());

/** Largest distance from the definition, as a share of the largest value. */
async function distance(mixer: Mixer, definition: (weights: Weights, tokens: readonly Row[]) => readonly Row[]) {
  // Time steps as in training, from 0.001 to 0.1, so that states last for tens to thousands of tokens.
  const weights = {
    ...weightsOf(mixer),
    "mamba.dt_bias": noise("steps", mixer.parameters["mamba.dt_bias"]?.shape[0] ?? 0).map((x) => x - 4),
  };
  const flat = Float32Array.from(noise("tokens", T * width));
  const tokens = range(T).map((t) => [...flat.subarray(t * width, (t + 1) * width)]);
  const specs = { x: f32(1, T, width), ...parameterSpecs(mixer) };
  const rope = (): never => {
    throw new Error("a state space mixer asks for no positions");
  };
  const graph = trace(specs, ({ x, ...p }) => ({
    value: mixer.forward(p as never, x as Tensor, { rope, metaTokens: 0 }).value,
  }));
  const program = await backend.compile(graph);
  const given = Object.entries(parameterSpecs(mixer)).map(([name, spec]) => [
    name,
    backend.tensor(spec, Float32Array.from(weights[name as keyof typeof weights] ?? [])),
  ]);
  const inputs = { x: backend.tensor(specs.x, flat), ...Object.fromEntries(given) };
  const found = await program.run(inputs).value.read();
  const rounded = Object.fromEntries(Object.entries(weights).map(([name, w]) => [name, w.map(Math.fround)]));
  const expected = definition(rounded, tokens).flat();
  expect(found).toHaveLength(expected.length);
  let [largest, furthest] = [0, 0];
  expected.forEach((value, index) => {
    largest = Math.max(largest, Math.abs(value));
    furthest = Math.max(furthest, Math.abs(value - (found[index] ?? Number.NaN)));
  });
  return furthest / largest;
}

test("Mamba-2 over 8192 tokens is its recurrence", async () => {
  const mixer = new Mamba2Mixer({ width, stateWidth: 4, headWidth: 4 });
  expect(await distance(mixer, mamba2(mixer.sizes))).toBeLessThan(1e-4);
});

test.each([
  [1, "softplus"],
  [2, "softplus"],
  [1, "heavy-tail"],
  [2, "heavy-tail"],
] as const)("Mamba-3 of rank %i by %s over 8192 tokens is its recurrence", async (rank, decay) => {
  const sizes = { stateWidth: 8, innerWidth: 8, headWidth: 4, groups: 1, rank, decay } as const;
  const mixer = new Mamba3Mixer({ width, ...sizes });
  expect(await distance(mixer, mamba3({ ...sizes, outputNorm: false }))).toBeLessThan(1e-3);
});
