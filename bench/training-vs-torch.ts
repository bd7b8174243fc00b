// One training step on the onnxruntime backend beside the same step in PyTorch eager, in turns.
// npm run bench -- training-vs-torch [--python PATH] [--threads 2] [--rounds 6] [--models transformer,sisa-exact,sisa-sdpa]

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import {
  type Backend,
  type DeviceTensor,
  f32,
  type GraphInputs,
  i32,
  initialize,
  type LanguageModel,
  languageModel,
  type ModelConfig,
  parameterCount,
  preset,
  RandomStream,
  simplify,
} from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { resolveSettings } from "../packages/train/src/config/settings.ts";
import { accumulateGraph, stateName, updateGraph } from "../packages/train/src/training-graphs.ts";
import { alternating, least, load, median, rounded, table } from "./support/statistics.ts";
import { hasTorch, installTorch, TorchWorker } from "./support/torch-worker.ts";

const batch = 8;
const length = 256;
const vocabularySize = 4096;
const stepsPerTurn = 3;
/** Relative difference of the first losses above which the two sides do not run the same model. */
const lossTolerance = 1e-5;

const optimizer = { learningRate: 3e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };

const configs: { readonly [name: string]: ModelConfig } = {
  transformer: preset("transformer", "5m", { vocabularySize }),
  "sisa-exact": preset("sisa", "5m", { vocabularySize }),
  "sisa-sdpa": preset("sisa", "5m", { vocabularySize, form: "sdpa" }),
};

const parts = ["step", "forward", "backward", "gradients", "update"] as const;
type Part = (typeof parts)[number];

/** Seconds of each part, one entry a measurement. */
class Times {
  readonly #of = new Map<Part, number[]>();

  clear(): void {
    this.#of.clear();
  }

  add(part: Part, seconds: number): void {
    this.#of.set(part, [...(this.#of.get(part) ?? []), seconds]);
  }

  /** Forward and backward are one program on our side, so its backward pass is what is left without the forward pass. */
  summary(statistic: (values: readonly number[]) => number): Record<Part, number> {
    const of = (part: Part) => statistic(this.#of.get(part) ?? []);
    const backward = this.#of.has("backward") ? of("backward") : of("gradients") - of("forward");
    return { step: of("step"), forward: of("forward"), backward, gradients: of("gradients"), update: of("update") };
  }
}

interface Data {
  readonly parameters: { readonly [name: string]: Float32Array };
  readonly ids: Int32Array;
  readonly targets: Int32Array;
}

interface Side {
  readonly firstLoss: number;
  readonly times: Times;
  steps(count: number): Promise<void>;
  forward(count: number): Promise<void>;
}

function makeData(model: LanguageModel): Data {
  const random = new RandomStream(1, "tokens");
  const tokens = Int32Array.from({ length: batch * (length + 1) }, (_, index) => random.below(vocabularySize, index));
  const rows = (first: number) =>
    Int32Array.from({ length: batch * length }, (_, index) => {
      const row = Math.floor(index / length);
      return tokens[row * (length + 1) + first + (index % length)] ?? 0;
    });
  return { parameters: initialize(model, 1), ids: rows(0), targets: rows(1) };
}

async function ourSide(backend: Backend, model: LanguageModel, data: Data): Promise<Side> {
  const settings = resolveSettings(
    { steps: 1000, gradientAccumulation: 1, optimizer },
    { parameterCount: parameterCount(model) },
  );
  const sizes = { B: batch, T: length };
  const accumulateProgram = accumulateGraph(model, 1);
  const updateProgram = updateGraph(model, settings);
  const accumulate = await backend.compile(accumulateProgram.graph.bind(sizes), { state: accumulateProgram.state });
  const update = await backend.compile(updateProgram.graph, { state: updateProgram.state });
  const lossOnly = await backend.compile(simplify(model.lossGraph().bind(sizes)));

  const batchTensors: Record<string, DeviceTensor> = {
    ids: backend.tensor(i32(batch, length), data.ids),
    targets: backend.tensor(i32(batch, length), data.targets),
  };
  const parameters: Record<string, DeviceTensor> = {};
  const moments: Record<string, DeviceTensor> = {};
  for (const [name, { shape }] of Object.entries(model.parameters)) {
    const spec = f32(...shape);
    parameters[name] = backend.tensor(spec, data.parameters[name]);
    moments[stateName.firstMoment(name)] = backend.tensor(spec);
    moments[stateName.secondMoment(name)] = backend.tensor(spec);
  }
  const rates = backend.tensor(f32(3));
  const halted = backend.tensor({ dtype: "bool", shape: [] });
  const times = new Times();
  let stepsDone = 0;

  const lossOf = async () => {
    const { value } = lossOnly.run({ ...batchTensors, ...parameters } as Record<keyof GraphInputs, DeviceTensor>);
    return (await value.read())[0] ?? Number.NaN;
  };

  return {
    firstLoss: await lossOf(),
    times,
    async steps(count) {
      for (let step = 0; step < count; step++) {
        stepsDone += 1;
        const start = performance.now();
        const corrections = [1 - optimizer.beta1 ** stepsDone, 1 - optimizer.beta2 ** stepsDone];
        backend.write(rates, Float32Array.of(optimizer.learningRate, ...corrections));
        const sums = accumulate.run({ ...batchTensors, ...parameters });
        await sums[stateName.loss]?.read();
        const middle = performance.now();
        const { report } = update.run({ ...sums, ...parameters, ...moments, rates, [stateName.halted]: halted });
        const [, , proceeded] = (await report?.read()) ?? [];
        const end = performance.now();
        if (proceeded !== 1) throw new Error("our step was not taken: loss or gradients are not finite");
        times.add("step", (end - start) / 1000);
        times.add("gradients", (middle - start) / 1000);
        times.add("update", (end - middle) / 1000);
      }
    },
    async forward(count) {
      for (let run = 0; run < count; run++) {
        const start = performance.now();
        await lossOf();
        times.add("forward", (performance.now() - start) / 1000);
      }
    },
  };
}

type TorchTimes = { readonly times: readonly { readonly [P in Part]?: number }[] };

async function torchSide(
  worker: TorchWorker,
  folder: string,
  config: ModelConfig,
  model: LanguageModel,
  data: Data,
  threads: number,
): Promise<Side & { readonly variant: string; readonly version: string }> {
  const names = Object.keys(model.parameters);
  const bytes = (array: Float32Array | Int32Array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  const weights = names.map((name) => bytes(data.parameters[name] ?? new Float32Array()));
  writeFileSync(path.join(folder, "weights.bin"), Buffer.concat(weights));
  const index = names.map((name) => [name, model.parameters[name]?.shape]);
  writeFileSync(path.join(folder, "weights.json"), JSON.stringify(index));
  writeFileSync(path.join(folder, "ids.bin"), bytes(data.ids));
  writeFileSync(path.join(folder, "targets.bin"), bytes(data.targets));

  const open = (variant: string) =>
    worker.ask<{ loss: number; version: string; session: number }>({
      command: "load",
      folder,
      config,
      threads,
      batch,
      length,
      optimizer: { ...optimizer, variant },
    });
  const updateTime = async (session: number) => {
    const { times } = await worker.ask<TorchTimes>({ command: "steps", session, count: 4 });
    return least(times.slice(1).map(({ update = Number.NaN }) => update));
  };
  const probes = [];
  for (const variant of ["fused", "foreach"]) {
    const { session } = await open(variant);
    probes.push({ variant, time: await updateTime(session) });
    await worker.ask({ command: "close", session });
  }
  const { variant } = probes.reduce((a, b) => (b.time < a.time ? b : a));
  const { loss, version, session } = await open(variant);
  const times = new Times();
  const ask = async (command: string, count: number) => {
    const answer = await worker.ask<TorchTimes>({ command, session, count });
    for (const measured of answer.times) {
      for (const part of parts) if (measured[part] !== undefined) times.add(part, measured[part]);
    }
  };
  return {
    firstLoss: loss,
    variant,
    version,
    times,
    steps: (count) => ask("steps", count),
    forward: (count) => ask("forward", count),
  };
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      python: { type: "string", default: process.env.TORCH_PYTHON ?? "python3" },
      threads: { type: "string", default: "2" },
      rounds: { type: "string", default: "6" },
      models: { type: "string", default: Object.keys(configs).join(",") },
    },
  });
  const [threads, rounds] = [Number(values.threads), Number(values.rounds)];
  const chosen = values.models.split(",");
  const unknown = chosen.find((name) => !Object.hasOwn(configs, name));
  if (unknown !== undefined) {
    process.stderr.write(`expected models of ${Object.keys(configs).join(", ")}, got "${unknown}"\n`);
    return 2;
  }
  if (!hasTorch(values.python)) {
    process.stderr.write(`${installTorch}\n`);
    return 2;
  }

  const folder = mkdtempSync(path.join(tmpdir(), "sisa-bench-"));
  const worker = new TorchWorker(values.python);
  await using backend = await onnxruntime({ threads });
  const loadBefore = load();
  const results: Record<string, { ours: Times; torch: Times }> = {};
  try {
    let about = "";
    for (const name of chosen) {
      const config = configs[name];
      if (config === undefined) continue;
      const model = languageModel(config);
      const data = makeData(model);
      const ours = await ourSide(backend, model, data);
      const torch = await torchSide(worker, folder, config, model, data, threads);
      const difference = Math.abs(ours.firstLoss / torch.firstLoss - 1);
      process.stdout.write(`${name}: first loss ${ours.firstLoss} here, ${torch.firstLoss} in PyTorch\n`);
      if (!(difference <= lossTolerance)) {
        process.stderr.write(`${name}: the losses differ by ${difference}, so these are not the same model\n`);
        return 1;
      }
      about = `PyTorch ${torch.version}, AdamW ${torch.variant}`;
      for (const side of [ours, torch]) await side.steps(1);
      for (const side of [ours, torch]) side.times.clear();
      await alternating(rounds, [
        () => ours.steps(stepsPerTurn),
        () => torch.steps(stepsPerTurn),
        () => ours.forward(1),
        () => torch.forward(1),
      ]);
      results[name] = { ours: ours.times, torch: torch.times };
    }
    report(results, { about, threads, rounds, loadBefore });
  } finally {
    worker.close();
    rmSync(folder, { recursive: true, force: true });
  }
  return 0;
}

interface Circumstances {
  readonly about: string;
  readonly threads: number;
  readonly rounds: number;
  readonly loadBefore: number;
}

/** Times in ms, and how much more we do in the same time: above 1 we are faster. */
function report(results: Record<string, { ours: Times; torch: Times }>, circumstances: Circumstances): void {
  const { about, threads, rounds, loadBefore } = circumstances;
  const ms = (seconds: number) => (seconds * 1000).toFixed(1);
  const json: Record<string, unknown> = { benchmark: "training-vs-torch", threads, rounds, load: [loadBefore, load()] };
  const rows: string[][] = [];
  for (const [name, { ours, torch }] of Object.entries(results)) {
    const [mine, theirs] = [ours.summary(median), torch.summary(median)];
    const [best, theirBest] = [ours.summary(least), torch.summary(least)];
    for (const part of parts) {
      if (part === "gradients") continue;
      const ratios = [theirs[part] / mine[part], theirBest[part] / best[part]].map((ratio) => ratio.toFixed(2));
      rows.push([`${name} ${part}`, ms(mine[part]), ms(theirs[part]), ms(best[part]), ms(theirBest[part]), ...ratios]);
    }
    const tokens = batch * length;
    const perSecond = [mine.step, theirs.step, best.step, theirBest.step].map((time) => (tokens / time).toFixed(0));
    rows.push([`${name} tokens/s`, ...perSecond, "", ""]);
    json[name] = {
      ratio: rounded(theirs.step / mine.step),
      ratioOfBest: rounded(theirBest.step / best.step),
      tokensPerSecond: [tokens / mine.step, tokens / theirs.step].map(rounded),
      parts: Object.fromEntries(parts.map((part) => [part, rounded(theirs[part] / mine[part])])),
    };
  }
  const [exact, sdpa] = [results["sisa-exact"], results["sisa-sdpa"]];
  if (exact && sdpa) {
    const ratio = (statistic: typeof median) => sdpa.torch.summary(statistic).step / exact.ours.summary(statistic).step;
    const ratios = [median, least].map((statistic) => ratio(statistic));
    rows.push(["sisa-exact here, sisa-sdpa there: step", "", "", "", "", ...ratios.map((value) => value.toFixed(2))]);
    json["sisa-exact-vs-sdpa"] = { ratio: rounded(ratios[0] ?? 0), ratioOfBest: rounded(ratios[1] ?? 0) };
  }
  process.stdout.write(
    `\n5M parameters, vocabulary ${vocabularySize}, batch ${batch} x ${length}, ${threads} threads, ${about}; ms, medians and best\n`,
  );
  const header = ["", "ours", "torch", "ours best", "torch best", "ratio", "of best"];
  process.stdout.write(`${table(header, rows)}\n${JSON.stringify(json)}\n`);
}

process.exitCode = await main();
