// Where the time of a training step goes on one NVIDIA GPU, by kernel: SISA beside the Transformer, and steps in a row.
//   node bench/run.mjs cuda-profile [--size 152m] [--micro-batch 16] [--steps 10] [--rows 60]
import { parseArgs } from "node:util";
import type { Family, PresetSize } from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import { cudaTrainer, sequenceLength } from "./support/cuda-training.ts";
import { type Launch, LaunchTimer } from "./support/launches.ts";
import { median, table } from "./support/statistics.ts";

const { values: options } = parseArgs({
  options: {
    size: { type: "string", default: "152m" },
    "micro-batch": { type: "string", default: "16" },
    steps: { type: "string", default: "10" },
    rows: { type: "string", default: "60" },
  },
});
const size = options.size as PresetSize;
const microBatch = Number(options["micro-batch"]);
const steps = Number(options.steps);
const warmUp = 3;
const families: readonly Family[] = ["sisa", "transformer"];

interface Sum {
  milliseconds: number;
  count: number;
  flops: number;
}

/** Medians over some steps of each launch, summed by name. */
async function kernels(family: Family): Promise<ReadonlyMap<string, Sum>> {
  await using backend = await cuda({ blocking: true });
  const timer = new LaunchTimer(backend);
  const runs = 5;
  await using trainer = await cudaTrainer(backend, family, size, { microBatch, steps: warmUp + runs });
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

/** Milliseconds of a step whose report the host waits for, and of steps in a row. */
async function wholeSteps(family: Family): Promise<{ readonly alone: number; readonly inARow: number }> {
  await using backend = await cuda();
  await using trainer = await cudaTrainer(backend, family, size, { microBatch, steps: warmUp + 4 * steps });
  await trainer.advance(warmUp);
  const time = async (count: number) => {
    const start = performance.now();
    await trainer.advance(count);
    return (performance.now() - start) / count;
  };
  const alone: number[] = [];
  const inARow: number[] = [];
  for (let step = 0; step < steps; step++) alone.push(await time(1));
  for (let row = 0; row < 3; row++) inARow.push(await time(steps));
  return { alone: median(alone), inARow: median(inARow) };
}

process.stdout.write(`${size}, ${microBatch} x ${sequenceLength} tokens a step\n\n`);
for (const family of families) {
  const { alone, inARow } = await wholeSteps(family);
  const rate = (1e3 * microBatch * sequenceLength) / inARow;
  process.stdout.write(
    `${family}: ${alone.toFixed(1)} ms a step, ${inARow.toFixed(1)} in a row (${rate.toFixed(0)} tokens/s)\n`,
  );
}
const [sisa = new Map<string, Sum>(), transformer = new Map<string, Sum>()] = [
  await kernels("sisa"),
  await kernels("transformer"),
];
const names = [...new Set([...sisa.keys(), ...transformer.keys()])];
const cells = ({ milliseconds = 0, count = 0, flops = 0 }: Partial<Sum> = {}) => [
  milliseconds.toFixed(2),
  `${count}`,
  flops > 0 ? (flops / milliseconds / 1e9).toFixed(0) : "",
];
const total = (sums: ReadonlyMap<string, Sum>) => ({
  milliseconds: [...sums.values()].reduce((sum, { milliseconds }) => sum + milliseconds, 0),
  count: [...sums.values()].reduce((sum, { count }) => sum + count, 0),
});
const larger = (name: string) => Math.max(...[sisa, transformer].map((sums) => sums.get(name)?.milliseconds ?? 0));
const rows = names
  .toSorted((a, b) => larger(b) - larger(a))
  .slice(0, Number(options.rows))
  .map((name) => [name, ...cells(sisa.get(name)), ...cells(transformer.get(name))]);
const header = ["launch", "SISA ms", "count", "TFLOP/s", "Transformer ms", "count", "TFLOP/s"];
process.stdout.write(`\n${table(header, [...rows, ["all", ...cells(total(sisa)), ...cells(total(transformer))]])}\n`);
