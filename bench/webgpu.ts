// The webgpu backend on whatever GPU there is: matrix products, attention, training steps and decoding, beside jax-js and
// ONNX Runtime's WebGPU provider on the same adapter, and beside what the adapter can do at most.
// npm run bench -- webgpu [--parts peak,matmul,attention,training,decode] [--peers jax,ort] [--sizes 5m,50m] [--batch 8] [--length 1024]
//   [--dtypes float32,float16], of which a GPU without halves leaves out the second

import { parseArgs } from "node:util";
import {
  Decoder,
  type DeviceTensor,
  decayAttention,
  f32,
  type Graph,
  i32,
  initialize,
  languageModel,
  matmul,
  mean,
  mul,
  parameterCount,
  preset,
  RandomStream,
  shadowName,
  sizesOf,
  type TensorSpec,
  toFloat16Bits,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { type WebgpuBackend, webgpu } from "@sisa/kernels-webgpu";
import { create, globals } from "webgpu";
import { resolveSettings } from "../packages/train/src/config/settings.ts";
import {
  accumulateGraph,
  keptSpecs,
  resized,
  shadowSpecs,
  stateName,
  updateGraph,
} from "../packages/train/src/training-graphs.ts";
import { least, load, median, rounded, table } from "./support/statistics.ts";
import { measurePeak } from "./support/webgpu-peak.ts";
import { chained, jaxMatmul, jaxTraining, openJax, ortDecoder, ortMatmul } from "./support/webgpu-peers.ts";

const { values: options } = parseArgs({
  options: {
    parts: { type: "string", default: "peak,matmul,attention,training,decode" },
    peers: { type: "string", default: "jax,ort" },
    sizes: { type: "string", default: "5m,50m" },
    batch: { type: "string", default: "8" },
    length: { type: "string", default: "1024" },
    matrices: { type: "string", default: "512,1024,2048,4096" },
    rounds: { type: "string", default: "5" },
    vocabulary: { type: "string", default: "4096" },
    dtypes: { type: "string", default: "float32,float16" },
  },
});
const numbers = (text: string) => text.split(",").map(Number);
const [batch, length, rounds, vocabularySize] = [options.batch, options.length, options.rounds, options.vocabulary].map(
  Number,
) as [number, number, number, number];

interface Measurement {
  readonly what: string;
  readonly milliseconds: number;
  /** Of the fastest round. */
  readonly best: number;
  readonly rate: number;
  readonly unit: string;
}

const results: Measurement[] = [];

/** A GPU that has been idle takes a while to run at its full rate, in milliseconds. */
const warmUpMs = 500;

/**
 * Times `repeats` enqueued calls and one wait, `rounds` times after some that do not count.
 * @param amount what one call does, in units of `unit` times seconds
 */
async function measure(
  what: string,
  unit: string,
  amount: number,
  repeats: number,
  call: () => unknown,
  wait: () => Promise<unknown>,
): Promise<void> {
  const round = async () => {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) await call();
    await wait();
    return (performance.now() - start) / repeats;
  };
  const warm = performance.now() + warmUpMs;
  while (performance.now() < warm) await round();
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) times.push(await round());
  const milliseconds = median(times);
  const result = { what, milliseconds, best: least(times), rate: amount / (milliseconds / 1000), unit };
  results.push(result);
  process.stdout.write(`${what.padEnd(48)} ${rounded(milliseconds)} ms  ${rounded(result.rate)} ${unit}\n`);
}

function fill(backend: WebgpuBackend, name: string, spec: TensorSpec, scale = 1, shift = 0) {
  const count = spec.shape.reduce((total, size) => total * (size.value ?? 1), 1);
  const random = new RandomStream(1, name);
  const values = Float32Array.from({ length: count }, (_, index) => scale * (random.uniform(index) - 0.5) + shift);
  return backend.tensor(spec, spec.dtype === "float16" ? Uint16Array.from(values, toFloat16Bits) : values);
}

type Width = "float32" | "float16";
const widths = (backend: WebgpuBackend) =>
  (options.dtypes.split(",") as Width[]).filter((width) => width === "float32" || backend.features.has("shader-f16"));

async function matrices(backend: WebgpuBackend, dtype: Width): Promise<void> {
  const matrix = (...shape: readonly number[]) => ({ dtype, shape: f32(...shape).shape });
  const shapes = numbers(options.matrices).map((n) => [n, n, n] as const);
  // A projection of 50M parameters, its weight's gradient, and one row of decoding.
  for (const [m, k, n, transposeA, transposeB] of [
    ...shapes.map((shape) => [...shape, false, false] as const),
    [8192, 512, 2048, false, true] as const,
    [2048, 8192, 512, true, false] as const,
    [1, 2048, 2048, false, true] as const,
  ]) {
    const specs = { a: transposeA ? matrix(k, m) : matrix(m, k), b: transposeB ? matrix(n, k) : matrix(k, n) };
    const graph = trace(specs, ({ a, b }) => matmul(a, b, { transposeA, transposeB }));
    const program = await backend.compile(graph);
    const [a, b] = [fill(backend, "a", graph.inputs.a), fill(backend, "b", graph.inputs.b)];
    const small = backend.tensor(f32(1));
    let last = program.run({ a, b }).value;
    const name = `matmul ${dtype} ${m} x ${k} x ${n}${transposeA ? ", a transposed" : ""}${transposeB ? ", b transposed" : ""}`;
    await measure(
      name,
      "GFLOP/s",
      (2 * m * n * k) / 1e9,
      m * n * k > 1e10 ? 4 : 16,
      () => {
        last = program.run({ a, b }).value;
      },
      () => small.read(),
    );
    void last;
    for (const tensor of [a, b, small]) tensor.dispose();
    program.close();
  }
}

async function attention(backend: WebgpuBackend): Promise<void> {
  const [B, H, D, S] = [2, 8, 64, 16];
  for (const T of [1024, 4096]) {
    const specs = {
      ...{ q: f32(B, T, H, D), k: f32(B, T, H, D), v: f32(B, T, H, D) },
      ...{ cRotated: f32(B, T, H, S), bRotated: f32(B, T, H, S) },
      ...{ gQuery: f32(B, T, H), gKey: f32(B, T, H), lambda: f32(H) },
    };
    const forward = trace(specs, (inputs) => decayAttention(inputs));
    const loss = trace({ ...specs, weight: f32(B, T, H, D) }, ({ weight, ...inputs }) =>
      mean(mul(decayAttention(inputs), weight)),
    );
    const both = valueAndGrad(loss, { wrt: Object.keys(specs) as (keyof typeof specs)[] });
    const tensors = Object.fromEntries(
      Object.entries({ ...specs, weight: f32(B, T, H, D) }).map(([name, spec]) => [
        name,
        name.startsWith("g") ? fill(backend, name, spec, 0.01, -0.5) : fill(backend, name, spec, 1, 0.5),
      ]),
    );
    const small = backend.tensor(f32(1));
    const flops = B * H * T * T * (D + S + D);
    for (const [name, graph, work] of [
      ["forward", forward, flops],
      ["forward and backward", both, flops + B * H * T * T * (3 * (D + S) + 2 * D)],
    ] as const) {
      const program = await backend.compile(graph as unknown as Graph);
      const { weight, ...rest } = tensors;
      const inputs = name === "forward" ? rest : { ...rest, weight };
      const run = () => void program.run(inputs as Parameters<typeof program.run>[0]);
      await measure(`SISA attention ${name}, T ${T}`, "GFLOP/s", work / 1e9, 4, run, () => small.read());
      program.close();
    }
    for (const tensor of [...Object.values(tensors), small]) tensor?.dispose();
  }
}

async function training(backend: WebgpuBackend, size: "5m" | "50m", precision: Width): Promise<void> {
  for (const family of ["transformer", "sisa"] as const) {
    const model = languageModel(preset(family, size, { vocabularySize }));
    const optimizer = { learningRate: 3e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
    const settings = resolveSettings(
      { steps: 1000, gradientAccumulation: 1, optimizer, precision },
      { parameterCount: parameterCount(model) },
    );
    const accumulation = accumulateGraph(model, 1, precision);
    const updating = updateGraph(model, settings, accumulation.shadowed);
    const accumulate = await backend.compile(accumulation.graph.bind({ B: batch, T: length }), {
      state: accumulation.state,
    });
    const update = await backend.compile(updating.graph, { state: updating.state });
    const random = new RandomStream(1, "tokens");
    const tokens = () => Int32Array.from({ length: batch * length }, (_, index) => random.below(vocabularySize, index));
    const ids = backend.tensor(i32(batch, length), tokens());
    const targets = backend.tensor(i32(batch, length), tokens());
    const kept = keptSpecs(model, precision);
    const specs = Object.entries(kept);
    const weights = Object.fromEntries(
      Object.entries(initialize(model, 1)).map(([name, values]) => [
        name,
        resized(values, model.parameters[name]?.shape ?? [], sizesOf(kept[name]?.shape ?? [])),
      ]),
    );
    const parameters = Object.fromEntries(specs.map(([name, spec]) => [name, backend.tensor(spec, weights[name])]));
    const moments = Object.fromEntries(
      specs.flatMap(([name, spec]) => [
        [stateName.firstMoment(name), backend.tensor(spec)],
        [stateName.secondMoment(name), backend.tensor(spec)],
      ]),
    );
    // Narrow copies of the parameters, and the scale of the loss; both only in float16.
    const copies = Object.fromEntries(
      Object.entries(shadowSpecs(model, accumulation.shadowed, precision)).map(([name, spec]) => [
        name,
        backend.tensor(spec, Uint16Array.from(weights[name.replace(shadowName(""), "")] ?? [], toFloat16Bits)),
      ]),
    );
    const scale: Record<string, DeviceTensor> = {};
    if (precision === "float16") {
      // Small enough that no step is skipped.
      scale[stateName.lossScale] = backend.tensor(f32(), Float32Array.of(1024));
      scale[stateName.stepsAtScale] = backend.tensor(f32());
    }
    const { [stateName.stepsAtScale]: _, ...lossScale } = scale;
    const read = Object.fromEntries(
      Object.entries({ ...parameters, ...copies }).filter(([name]) => name in accumulation.graph.inputs),
    );
    const rates = backend.tensor(f32(3), Float32Array.of(3e-4, 0.1, 0.05));
    const halted = backend.tensor({ dtype: "bool", shape: [] });
    let report: Awaited<ReturnType<typeof update.run>>[string] | undefined;
    const step = () => {
      const sums = accumulate.run({ ids, targets, ...read, ...lossScale });
      const state = { ...parameters, ...copies, ...moments, ...scale, [stateName.halted]: halted };
      report = update.run({ ...sums, ...state, rates }).report;
    };
    const what = `training ${family} ${size} ${precision}, ${batch} x ${length}`;
    await measure(what, "tokens/s", batch * length, 3, step, async () => {
      const [loss, , proceeded] = (await report?.read()) ?? [];
      if (proceeded !== 1) throw new Error(`a step was not taken: its loss is ${loss}, or gradients are not finite`);
    });
    accumulate.close();
    update.close();
    const all = [ids, targets, rates, halted, ...[parameters, moments, copies, scale].flatMap(Object.values)];
    for (const tensor of all) tensor.dispose();
  }
}

const choice = { uniform: 0.5, temperature: 0.8, topK: 50, topP: 0.95 };

async function decode(backend: WebgpuBackend, size: "5m" | "50m"): Promise<void> {
  for (const family of ["transformer", "sisa"] as const) {
    const model = languageModel(preset(family, size, { vocabularySize }));
    const context = 512;
    await using decoder = await Decoder.create({
      model,
      parameters: initialize(model, 1),
      backend,
      capacity: context + 128,
    });
    const prompt = Array.from({ length: context }, (_, index) => index % vocabularySize);
    const read = async () => void (await decoder.append([prompt], [0]));
    await measure(`prefill ${family} ${size}, ${context} tokens`, "tokens/s", context, 1, read, async () => undefined);
    for (const [what, take] of [
      ["logits read each time", (run: number) => decoder.append([[run]], [context + run])],
      ["tokens chosen on the GPU", (run: number) => decoder.next([[run]], [context + run], [choice])],
    ] as const) {
      const times: number[] = [];
      for (let run = 0; run < 100; run++) {
        const start = performance.now();
        await take(run);
        times.push(performance.now() - start);
      }
      const milliseconds = median(times);
      const name = `decoding ${family} ${size} behind ${context}, ${what}`;
      results.push({ what: name, milliseconds, best: least(times), rate: 1000 / milliseconds, unit: "tokens/s" });
      process.stdout.write(
        `${name.padEnd(48)} ${rounded(milliseconds)} ms  ${rounded(1000 / milliseconds)} tokens/s\n`,
      );
    }
  }
}

const peers = options.peers.split(",");

async function peerMatrices(): Promise<void> {
  for (const n of numbers(options.matrices)) {
    const work = (2 * n ** 3) / 1e9;
    const repeats = n ** 3 > 1e10 ? 4 : 16;
    if (peers.includes("jax")) {
      const { call, wait, close } = jaxMatmul(n);
      await measure(`matmul ${n} x ${n} x ${n}, jax-js`, "GFLOP/s", work, repeats, call, wait);
      await close?.();
    }
    if (peers.includes("ort")) {
      const { run, close } = await ortMatmul(n);
      await measure(
        `matmul ${n} x ${n} x ${n}, ${chained} in a row, ORT`,
        "GFLOP/s",
        work * chained,
        1,
        run,
        async () => undefined,
      );
      await close?.();
    }
  }
}

async function peerTraining(size: "5m" | "50m"): Promise<void> {
  if (!peers.includes("jax")) return;
  const { width, heads, feedForwardWidth, mixers } = preset("transformer", size, { vocabularySize });
  const sizes = { width, heads, feedForwardWidth, layers: mixers.length, vocabularySize };
  const { call, wait, close } = jaxTraining(sizes, batch, length);
  await measure(
    `training transformer ${size}, ${batch} x ${length}, jax-js`,
    "tokens/s",
    batch * length,
    3,
    call,
    wait,
  );
  await close?.();
}

async function peerDecoding(size: "5m" | "50m"): Promise<void> {
  if (!peers.includes("ort")) return;
  const none = async () => undefined;
  for (const family of ["transformer", "sisa"] as const) {
    const decoder = await ortDecoder(family, size, vocabularySize);
    const context = 512;
    await measure(
      `prefill ${family} ${size}, ${context} tokens, ORT`,
      "tokens/s",
      context,
      1,
      () => decoder.prefill(context),
      none,
    );
    await measure(`decoding ${family} ${size} behind ${context}, ORT`, "tokens/s", 1, 20, decoder.decode, none);
    await decoder.close();
  }
}

const before = load();
// Halves on NVIDIA's GPUs, and matrix units.
const gpu = create(["enable-dawn-features=vulkan_enable_f16_on_nvidia,allow_unsafe_apis"]);
await using backend = await webgpu({ gpu, powerPreference: "high-performance" });
process.stdout.write(`${backend.description}; ${[...backend.features].join(", ") || "no optional features"}\n\n`);
const parts = options.parts.split(",");
/** What fails on one side is said and leaves the others their turn. */
async function attempt(what: string, part: () => Promise<void>): Promise<void> {
  await part().catch((error: unknown) => process.stdout.write(`${what} failed: ${String(error)}\n`));
}

const peak = parts.includes("peak") ? await measurePeak(gpu as unknown as GPU) : undefined;
if (peak) process.stdout.write(`peak: ${rounded(peak.gflops)} GFLOP/s, ${rounded(peak.gigabytes)} GB/s\n`);
if (peers.includes("jax")) await attempt("jax-js", () => openJax(gpu, globals));
if (parts.includes("matmul")) {
  for (const width of widths(backend)) await matrices(backend, width);
  await attempt("matrix products of others", peerMatrices);
}
if (parts.includes("attention")) await attention(backend);
for (const size of options.sizes.split(",") as ("5m" | "50m")[]) {
  if (parts.includes("training")) {
    for (const width of widths(backend)) await training(backend, size, width);
    await attempt("training of others", () => peerTraining(size));
  }
  if (parts.includes("decode")) {
    await decode(backend, size);
    await attempt("decoding of others", () => peerDecoding(size));
  }
}
const cells = results.map(({ what, milliseconds, best, rate, unit }) => [
  what,
  String(rounded(milliseconds)),
  String(rounded(best)),
  `${rounded(rate)} ${unit}`,
]);
process.stdout.write(`\n${table(["what", "median ms", "best ms", "rate"], cells)}\n`);
process.stdout.write(
  `${JSON.stringify({ gpu: backend.description, features: [...backend.features], load: [before, load()], peak, results })}\n`,
);
