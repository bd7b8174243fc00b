// One training step on the onnxruntime backend beside the same step in PyTorch eager, in turns.
// npm run bench -- training-vs-torch [--python PATH] [--threads 2] [--rounds 6] [--models transformer,sisa-exact,sisa-sdpa]

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { type LanguageModel, languageModel, type ModelConfig, preset } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { alternating, least, load, median, rounded, table } from "./support/statistics.ts";
import { hasTorch, installTorch, TorchWorker } from "./support/torch-worker.ts";
import { type Data, makeData, optimizer, ourSide, type Part, parts, type Side, Times } from "./support/training.ts";

const sizes = { batch: 8, length: 256 };
const vocabularySize = 4096;
const stepsPerTurn = 3;
/** Relative difference of the first losses above which the two sides do not run the same model. */
const lossTolerance = 1e-5;

const configs: { readonly [name: string]: ModelConfig } = {
  transformer: preset("transformer", "5m", { vocabularySize }),
  "sisa-exact": preset("sisa", "5m", { vocabularySize }),
  "sisa-sdpa": preset("sisa", "5m", { vocabularySize, form: "sdpa" }),
};

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
      ...sizes,
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
      const data = makeData(model, sizes);
      const ours = await ourSide(backend, model, data, sizes);
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
    const tokens = sizes.batch * sizes.length;
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
    `\n5M parameters, vocabulary ${vocabularySize}, batch ${sizes.batch} x ${sizes.length}, ${threads} threads, ${about}; ms, medians and best\n`,
  );
  const header = ["", "ours", "torch", "ours best", "torch best", "ratio", "of best"];
  process.stdout.write(`${table(header, rows)}\n${JSON.stringify(json)}\n`);
}

process.exitCode = await main();
