// One token at a time on one GPU: what a step of decoding takes, and where its time goes. Cached decoding is compared with a
// full pass first. Needs an NVIDIA GPU.
//   node bench/run.mjs cuda-decode [--family sisa] [--size 152m] [--context 1024] [--precisions float32,bfloat16] [--batch 1]
import { parseArgs } from "node:util";
import {
  Decoder,
  type DeviceTensor,
  type Family,
  type Graph,
  initialize,
  inPrecision,
  languageModel,
  type Precision,
  type PresetSize,
  preset,
  RandomStream,
  simplify,
} from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import type { Device } from "../packages/kernels-cuda/src/device/device.ts";
import type { CudaExecutable } from "../packages/kernels-cuda/src/executable.ts";
import { median } from "./support/statistics.ts";

const { values: options } = parseArgs({
  options: {
    family: { type: "string", default: "sisa" },
    size: { type: "string", default: "152m" },
    context: { type: "string", default: "1024" },
    precisions: { type: "string", default: "float32,bfloat16" },
    batch: { type: "string", default: "1" },
    tokens: { type: "string", default: "64" },
  },
});
const [context, batch, tokens] = [options.context, options.batch, options.tokens].map(Number) as [
  number,
  number,
  number,
];
const capacity = context + 2 * tokens + 8;
const vocabularySize = 50_277;
const config = preset(options.family as Family, options.size as PresetSize, {
  vocabularySize,
  maximumLength: 2 * capacity,
});
const model = languageModel(config);
const parameters = initialize(model, 1);
const line = (text: string) => process.stdout.write(`${text}\n`);

const stream = new RandomStream(3, "tokens");
const prompt = Array.from({ length: context }, (_, i) => stream.below(vocabularySize, i));

await using backend = await cuda();
const { device } = backend as unknown as { readonly device: Device };
line(`${backend.description}; ${options.family} ${options.size}, ${context} tokens held, batch ${batch}`);

/** Logits after each of the last tokens, from one pass over all of them in float32. */
async function fullPass(count: number): Promise<Float32Array> {
  const graph = model.logitsGraph().bind({ B: 1, T: context });
  const program = await backend.compile(graph as unknown as Graph, { constants: parameters });
  const ids = backend.tensor({ dtype: "int32", shape: graph.inputs.ids.shape }, Int32Array.from(prompt));
  const all = (await program.run({ ids }).logits?.read()) as Float32Array;
  program.close();
  ids.dispose();
  return all.slice((context - count) * vocabularySize);
}

const checked = 8;
const wanted = await fullPass(checked);

for (const precision of options.precisions.split(",") as Precision[]) {
  line(`\n${precision}`);
  await using decoder = await Decoder.create({ model, parameters, backend, capacity, batch, precision });
  const rows = (ids: readonly number[]) => Array.from({ length: batch }, () => ids);
  const at = (position: number) => new Array<number>(batch).fill(position);

  let [difference, square, size, agreed] = [0, 0, 0, 0];
  await decoder.append(rows(prompt.slice(0, context - checked)), at(0));
  for (let i = 0; i < checked; i++) {
    const position = context - checked + i;
    const logits = await decoder.append(rows([prompt[position] ?? 0]), at(position));
    let [best, other] = [0, 0];
    for (let v = 0; v < vocabularySize; v++) {
      const [ours = Number.NaN, theirs = 0] = [logits[v], wanted[i * vocabularySize + v]];
      difference = Math.max(difference, Math.abs(ours - theirs));
      square += (ours - theirs) ** 2;
      size += theirs ** 2;
      if (ours > (logits[best] ?? 0)) best = v;
      if (theirs > (wanted[i * vocabularySize + other] ?? 0)) other = v;
    }
    if (best === other) agreed += 1;
  }
  line(
    `beside a full pass in float32, ${checked} tokens: largest difference ${difference.toExponential(2)}, by norm ${Math.sqrt(square / size).toExponential(2)}, likeliest token the same in ${agreed}`,
  );

  /** Median microseconds of waiting for a token. */
  async function measure(step: (position: number) => Promise<unknown>): Promise<string> {
    const times: number[] = [];
    for (let i = 0; i < tokens; i++) {
      const start = performance.now();
      await step(context + i);
      if (i >= 8) times.push(1000 * (performance.now() - start));
    }
    return `${median(times).toFixed(0)} (fastest ${Math.min(...times).toFixed(0)})`;
  }
  const withLogits = await measure((position) => decoder.append(rows([5]), at(position)));
  const choices = (temperature: number) => Array.from({ length: batch }, () => ({ temperature, uniform: 0.5 }));
  const greedy = await measure((position) => decoder.next(rows([5]), at(position), choices(0)));
  const drawn = await measure((position) => decoder.next(rows([5]), at(position), choices(0.8)));
  line(
    `microseconds a token: ${withLogits} with the logits read, ${greedy} with the likeliest token read, ${drawn} with one drawn`,
  );

  await decoder.next(rows([5]), at(context), choices(0));
  const followed: number[] = [];
  let pending = decoder.follow(choices(0));
  for (let i = 0; i < tokens; i++) {
    const start = performance.now();
    const ahead = decoder.follow(choices(0));
    await pending;
    pending = ahead;
    if (i >= 8) followed.push(1000 * (performance.now() - start));
  }
  await pending;
  line(
    `as generate does, one token ahead: ${median(followed).toFixed(0)} (fastest ${Math.min(...followed).toFixed(0)})`,
  );

  // The same program, launched by itself.
  const graph = simplify(inPrecision(model.decodeGraph(batch, capacity + 1), precision)).bind({ T: 1 });
  const names = Object.keys(model.cacheSpecs());
  const program = await backend.compile(graph as unknown as Graph, {
    state: Object.fromEntries(names.map((name) => [name, name])),
    constants: parameters,
  });
  const inputs: Record<string, DeviceTensor> = {};
  for (const [name, spec] of Object.entries(graph.inputs)) {
    if (!(name in model.parameters)) inputs[name] = backend.tensor(spec);
  }
  if (inputs.start) backend.write(inputs.start, new Int32Array(batch).fill(context));
  for (let run = 0; run < 3; run++) program.run(inputs);
  await device.finished();
  const runs = 200;
  const start = performance.now();
  for (let run = 0; run < runs; run++) program.run(inputs);
  const enqueued = performance.now() - start;
  await device.finished();
  const inARow = performance.now() - start;
  const profile = await (program as unknown as CudaExecutable<never, never>).profile();
  const { steps } = profile;
  const each = (milliseconds: number) => ((1000 * milliseconds) / runs).toFixed(1);
  line(`the launched graph alone: ${(1000 * profile.milliseconds).toFixed(1)} microseconds on the device`);
  line(`${runs} runs in a row: ${each(inARow)} microseconds each, ${each(enqueued)} to enqueue one`);
  const total = steps.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const kinds = new Map<string, { count: number; milliseconds: number }>();
  for (const { step, milliseconds } of steps) {
    const name = `${step.op}, ${step.kind === "kernel" ? step.kernel : step.kind}`;
    const kind = kinds.get(name) ?? { count: 0, milliseconds: 0 };
    kinds.set(name, { count: kind.count + 1, milliseconds: kind.milliseconds + milliseconds });
  }
  line(`${steps.length} steps, one after another with events between them: ${(1000 * total).toFixed(0)} microseconds`);
  for (const [name, { count, milliseconds }] of [...kinds]
    .sort(([, a], [, b]) => b.milliseconds - a.milliseconds)
    .slice(0, 14)) {
    line(
      `  ${(1000 * milliseconds).toFixed(1).padStart(8)}  ${String(count).padStart(3)} x ${((1000 * milliseconds) / count).toFixed(2).padStart(7)}  ${name}`,
    );
  }
  program.close();
  for (const tensor of Object.values(inputs)) tensor.dispose();
}
