// SISA with one thing changed, attention that forgets, with slopes and in windows, and Mamba-1 to -3 with what Hymba has
// around them, on this backend beside the reference: the loss and its gradients, and cached decoding.

import { testGpu } from "@sisa/browser-testing/node";
import {
  type Backend,
  Decoder,
  type DeviceTensor,
  i32,
  initialize,
  languageModel,
  type ModelConfig,
  parameterSpecs,
  reference,
  valueAndGrad,
} from "@sisa/core";
import { expect, test, vi } from "vitest";
import { webgpu } from "./backend.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const gpu = await testGpu();

const vocabularySize = 23;
const length = 8;

const mixerSettings = {
  fox: { kind: "attention", positions: "none", forget: true },
  foxPro: { kind: "attention", positions: "none", forget: true, queryKeyNorm: true, shift: true, outputGate: true },
  alibi: { kind: "attention", positions: "alibi" },
  local: { kind: "attention", window: 5, keyValueHeads: 1, keyWidth: 12 },
  mamba: { kind: "mamba", normalize: true },
  inner: { kind: "attention" },
  wide: { kind: "mamba2", headWidth: 8, innerWidth: 16 },
  mamba3: { kind: "mamba3", headWidth: 8 },
  mimo: { kind: "mamba3", headWidth: 8, rank: 2, decay: "heavy-tail", outputNorm: true },
  sigmoid: { kind: "sisa", weights: "sigmoid" },
  decayOnly: { kind: "sisa", rotation: false, positions: "none", longestHalfLife: 50 },
  rotationOnly: { kind: "sisa", decay: "none", stateWidth: 6, normalize: true },
  constantDecay: { kind: "sisa", decay: "constant" },
} as const satisfies ModelConfig["mixerSettings"];

function tinyModel(mixers: readonly string[], change: Partial<ModelConfig>) {
  const sizes = { vocabularySize, width: 16, heads: 2, feedForwardWidth: 12, stateWidth: 4, maximumLength: 32 };
  const model = languageModel({
    mixers,
    ...sizes,
    form: "exact",
    ropeBase: 1e4,
    normEpsilon: 1e-6,
    mixerSettings,
    ...change,
  });
  const parameters = initialize(model, 5);
  // Weights of size 1, so that every part matters.
  for (const [name, values] of Object.entries(parameters)) {
    if (model.parameters[name]?.initializer.kind === "normal") values.set(values.map((value) => value * 12));
  }
  return { model, parameters };
}

async function lossAndGradients(backend: Backend, { model, parameters }: ReturnType<typeof tinyModel>) {
  const graph = valueAndGrad(model.lossGraph(), { wrt: Object.keys(parameters) }).bind({ B: 2, T: length });
  const program = await backend.compile(graph);
  const ids = (shift: number) => Int32Array.from({ length: 2 * length }, (_, i) => (i * 11 + shift) % vocabularySize);
  const outputs: Readonly<Record<string, DeviceTensor>> = program.run({
    ids: backend.tensor(i32(2, length), ids(0)),
    targets: backend.tensor(i32(2, length), ids(5)),
    ...Object.fromEntries(
      Object.entries(parameterSpecs(model)).map(([name, spec]) => [name, backend.tensor(spec, parameters[name])]),
    ),
  });
  return Object.fromEntries(
    await Promise.all(Object.entries(outputs).map(async ([name, tensor]) => [name, await tensor.read()] as const)),
  );
}

/** Largest difference of two arrays by the largest element of the second. */
function difference(a: ArrayLike<number> | undefined, b: ArrayLike<number>): number {
  const values = Array.from(b);
  const largest = Math.max(...values.map(Math.abs));
  return Math.max(...values.map((value, index) => Math.abs((a?.[index] ?? Number.NaN) - value))) / (largest || 1);
}

/** Mixers by layer, and what else of the model is not as usual. */
const rows: readonly (readonly [string, readonly string[], Partial<ModelConfig>])[] = [
  ["SISA with sigmoids, and with a constant decay", ["sigmoid", "constantDecay"], {}],
  ["SISA with decay only, and with rotation only", ["decayOnly", "rotationOnly"], {}],
  ["SISA as the paper computes it", ["sisa"], { form: "sdpa", mixerSettings: {} }],
  ["Mamba-3 of one rank and of two", ["mamba3", "mimo"], {}],
  ["FoX and FoX Pro", ["fox", "foxPro"], {}],
  ["ALiBi and a window", ["alibi", "local"], {}],
  [
    "Mamba beside attention and alone, after meta tokens, with routed feed-forwards",
    ["wide+inner", "mamba"],
    { metaTokens: 2, combination: "mean", feedForwards: ["none", "routed"], experts: { count: 3, perToken: 2 } },
  ],
];

test.each(rows)("%s: the loss and its gradients, and cached decoding", async (_name, mixers, change) => {
  await using backend = await webgpu({ gpu });
  await using plain = reference();
  const own = tinyModel(mixers, change);
  const expected = await lossAndGradients(plain, own);
  const gradients = await lossAndGradients(backend, own);
  const apart = Object.entries(expected).filter(([name, values]) => !(difference(gradients[name], values) < 1e-3));
  expect(apart.map(([name]) => name)).toEqual([]);

  const tokens = Array.from({ length }, (_, index) => (index * 7 + 3) % vocabularySize);
  await using decoder = await Decoder.create({ ...own, backend, capacity: length + 1 });
  await using full = await Decoder.create({ ...own, backend: plain, capacity: length + 1 });
  const prompt = tokens.slice(0, 6);
  expect(difference(await decoder.append([prompt], [0]), await full.append([prompt], [0]))).toBeLessThan(1e-3);
  for (let position = prompt.length; position < length; position++) {
    const logits = await decoder.append([tokens.slice(position, position + 1)], [position]);
    expect(difference(logits, await full.append([tokens.slice(0, position + 1)], [0]))).toBeLessThan(1e-3);
  }
  const choice = { uniform: 0.6, temperature: 1.5, topK: 20, topP: 0.9 };
  const [token] = await decoder.next([[4]], [length], [choice]);
  expect(token).toBe((await full.next([[...tokens, 4]], [0], [choice]))[0]);
});
