// Training steps on one NVIDIA GPU, SISA beside the Transformer: steps in a row, the models in turns, and where the time of a
// step goes, by kernel.
//   node bench/run.mjs cuda-profile [--size 152m] [--micro-batch 16] [--steps 8] [--rows 60]
import { parseArgs } from "node:util";
import type { Family, PresetSize } from "@sisa/core";
import { type CudaBackend, cuda } from "@sisa/kernels-cuda";
import type { Trainer } from "../packages/train/src/trainer.ts";
import { cudaTrainer, sequenceLength } from "./support/cuda-training.ts";
import { type Launch, LaunchTimer } from "./support/launches.ts";
import { median, table } from "./support/statistics.ts";

const { values: options } = parseArgs({
  options: {
    size: { type: "string", default: "152m" },
    "micro-batch": { type: "string", default: "16" },
    steps: { type: "string", default: "8" },
    rows: { type: "string", default: "60" },
  },
});
const size = options.size as PresetSize;
const microBatch = Number(options["micro-batch"]);
const steps = Number(options.steps);
const warmUp = 3;
const rounds = 5;

interface Model {
  readonly family: Family;
  readonly stateWidth?: number;
}
const models: readonly Model[] = [
  { family: "sisa", stateWidth: 32 },
  { family: "sisa", stateWidth: 16 },
  { family: "transformer" },
];
const nameOf = ({ family, stateWidth }: Model) => (stateWidth === undefined ? family : `${family}, S = ${stateWidth}`);

interface Sum {
  milliseconds: number;
  count: number;
  flops: number;
}

/** Medians over some steps of each launch, summed by name. */
async function kernels({ family, stateWidth }: Model): Promise<ReadonlyMap<string, Sum>> {
  await using backend = await cuda({ blocking: true });
  const timer = new LaunchTimer(backend);
  const runs = 5;
  await using trainer = await cudaTrainer(backend, family, size, { microBatch, stateWidth, steps: warmUp + runs });
  await trainer.advance(warmUp);
  const timed: (readonly Launch[])[] = [];
  for (let run = 0; run < runs; run++) timed.push(await timer.time(() => trainer.advance(1)));
  const sums = new Map<string, Sum>();
  timed[0]?.forEach(({ name, flops }, index) => {
    const sum = sums.get(name) ?? { milliseconds: 0, count: 0, flops: 0 };
    sum.milliseconds += median(timed.map((launches) => launches[index]?.milliseconds ?? Number.NaN));
    sum.count += 1;
    sum.flops += flops;
    sums.set(name, sum);
  });
  return sums;
}

/** Milliseconds of a step among steps in a row, by round, of all models. */
async function wholeSteps(): Promise<readonly (readonly number[])[]> {
  const opened: { readonly backend: CudaBackend; readonly trainer: Trainer }[] = [];
  const times = models.map((): number[] => []);
  try {
    for (const { family, stateWidth } of models) {
      const backend = await cuda();
      const options = { microBatch, stateWidth, steps: warmUp + rounds * steps };
      const trainer = await cudaTrainer(backend, family, size, options);
      opened.push({ backend, trainer });
      await trainer.advance(warmUp);
    }
    for (let round = 0; round < rounds; round++) {
      for (const [index, { trainer }] of opened.entries()) {
        const start = performance.now();
        await trainer.advance(steps);
        times[index]?.push((performance.now() - start) / steps);
      }
    }
  } finally {
    for (const { backend, trainer } of opened) {
      await trainer[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    }
  }
  return times;
}

process.stdout.write(`${size}, ${microBatch} x ${sequenceLength} tokens a step\n\n`);
const times = await wholeSteps();
const least = median(times.at(-1) ?? []);
const steppedRows = models.map((model, index) => {
  const own = times[index] ?? [];
  const rate = (1e3 * microBatch * sequenceLength) / median(own);
  const all = own.map((time) => time.toFixed(2)).join(" ");
  return [nameOf(model), median(own).toFixed(2), rate.toFixed(0), (least / median(own)).toFixed(3), all];
});
process.stdout.write(`${table(["", "ms a step", "tokens/s", "of the Transformer's", "by round"], steppedRows)}\n`);

const sums: ReadonlyMap<string, Sum>[] = [];
for (const model of models) sums.push(await kernels(model));
const names = [...new Set(sums.flatMap((sum) => [...sum.keys()]))];
const cells = ({ milliseconds = 0, count = 0, flops = 0 }: Partial<Sum> = {}) => [
  milliseconds.toFixed(2),
  `${count}`,
  flops > 0 ? (flops / milliseconds / 1e9).toFixed(0) : "",
];
const total = (sums: ReadonlyMap<string, Sum>) => ({
  milliseconds: [...sums.values()].reduce((sum, { milliseconds }) => sum + milliseconds, 0),
  count: [...sums.values()].reduce((sum, { count }) => sum + count, 0),
});
const larger = (name: string) => Math.max(...sums.map((sum) => sum.get(name)?.milliseconds ?? 0));
const rows = names
  .toSorted((a, b) => larger(b) - larger(a))
  .slice(0, Number(options.rows))
  .map((name) => [name, ...sums.flatMap((sum) => cells(sum.get(name)))]);
const header = ["launch", ...models.flatMap((model) => [`${nameOf(model)}, ms`, "count", "TFLOP/s"])];
process.stdout.write(`\n${table(header, [...rows, ["all", ...sums.flatMap((sum) => cells(total(sum)))]])}\n`);
