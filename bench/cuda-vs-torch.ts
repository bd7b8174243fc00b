// Training steps on one GPU: ours beside PyTorch with torch.compile, on the same card in the same run. Both run some steps
// in a row and read their loss at the end. Needs an NVIDIA GPU, and a python3 with PyTorch and Triton on PATH.
//   node bench/run.mjs cuda-vs-torch [--size 152m] [--micro-batch 16] [--steps 10]
import { execFile } from "node:child_process";
import { parseArgs, promisify } from "node:util";
import { type Family, languageModel, type PresetSize } from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import { configOf, cudaTrainer, sequenceLength, vocabularySize } from "./support/cuda-training.ts";
import { median } from "./support/statistics.ts";

const run = promisify(execFile);
/** From where bench/run.mjs puts the compiled program. */
const script = new URL("../../../cuda/torch_training.py", import.meta.url).pathname;
const { values: options } = parseArgs({
  options: {
    size: { type: "string", default: "152m" },
    "micro-batch": { type: "string", default: "16" },
    steps: { type: "string", default: "10" },
  },
});
const size = options.size as PresetSize;
const microBatch = Number(options["micro-batch"]);
const steps = Number(options.steps);
/** Rows of steps; the median counts. */
const rows = 3;
const warmUp = 4;

/** Dense bfloat16 peak of an H100 or H200 (SXM), by the vendor. */
const peakFlops = 989e12;

/** 6 a parameter, and causal attention, forward and backward. */
function flopsPerToken(family: Family): number {
  const config = configOf(family, size);
  const model = languageModel(config);
  const count = Object.values(model.parameters).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const keyWidth = config.width + (family === "sisa" ? config.heads * config.stateWidth : 0);
  return 6 * count + 3 * config.mixers.length * sequenceLength * (keyWidth + config.width);
}

interface Result {
  /** A step, in each row. */
  readonly milliseconds: readonly number[];
  readonly bytes: number;
}

async function ours(family: Family): Promise<Result> {
  await using backend = await cuda();
  await using trainer = await cudaTrainer(backend, family, size, { microBatch, steps: warmUp + rows * steps });
  await trainer.advance(warmUp);
  const milliseconds: number[] = [];
  for (let row = 0; row < rows; row++) {
    const start = performance.now();
    await trainer.advance(steps);
    milliseconds.push((performance.now() - start) / steps);
  }
  return { milliseconds, bytes: backend.memory().deviceBytes };
}

async function torch(family: Family, attention: string): Promise<Result> {
  const { width, heads, stateWidth, feedForwardWidth, mixers } = configOf(family, size);
  const given = { kind: family, attention, microBatch, rows, steps, warmUp, sequenceLength, vocabularySize };
  const config = { ...given, width, heads, stateWidth, feedForwardWidth, layers: mixers.length };
  const { stdout } = await run("python3", [script, JSON.stringify(config)], { maxBuffer: 2 ** 24 });
  const { milliseconds, peakBytes } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  return { milliseconds, bytes: peakBytes };
}

const variants: readonly (readonly [name: string, family: Family, measure: () => Promise<Result>])[] = [
  ["SISA, ours", "sisa", () => ours("sisa")],
  ["SISA, torch, efficient", "sisa", () => torch("sisa", "efficient")],
  ["Transformer, ours", "transformer", () => ours("transformer")],
  ["SISA, torch, cuDNN", "sisa", () => torch("sisa", "cudnn")],
  ["Transformer, torch, flash", "transformer", () => torch("transformer", "flash")],
  ["SISA, ours, again", "sisa", () => ours("sisa")],
  ["Transformer, torch, cuDNN", "transformer", () => torch("transformer", "cudnn")],
];

process.stdout.write(
  `${size}, ${microBatch} x ${sequenceLength} tokens a step, median of ${rows} times ${steps} steps\n\n`,
);
process.stdout.write("| | tokens/s | ms a step | MFU | GB |\n|---|---|---|---|---|\n");
for (const [name, family, measure] of variants) {
  try {
    const { milliseconds, bytes } = await measure();
    const time = median(milliseconds);
    const rate = (microBatch * sequenceLength * 1e3) / time;
    const mfu = (100 * rate * flopsPerToken(family)) / peakFlops;
    const cells = [name, rate.toFixed(0), time.toFixed(1), `${mfu.toFixed(1)} %`, (bytes / 1e9).toFixed(1)];
    process.stdout.write(`| ${cells.join(" | ")} |\n`);
  } catch (error) {
    process.stdout.write(`| ${name} | failed: ${String(error).slice(-600).replaceAll("\n", " ")} | | | |\n`);
  }
}
