// Time per token of exported files on ONNX Runtime's CPU provider, by the tokens of context: caches that grow beside caches
// of a fixed capacity that are written in place, and beside the same model without any context.
// npm run bench -- exported-decoding [--family sisa] [--size 50m] [--threads 2] [--rounds 8] [--dtypes float32,int8] [--contexts 64,512,2047]

import { parseArgs } from "node:util";
import { type Family, initialize, languageModel, type PresetSize, preset } from "@sisa/core";
import { exportOnnx, type WeightType } from "@sisa/onnx";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { alternating, least, load, median, rounded, table } from "./support/statistics.ts";

const int64 = (values: readonly number[], dims: readonly number[]) =>
  new Tensor("int64", BigInt64Array.from(values, BigInt), dims);

function cachesOf(session: InferenceSession, rows: number): Record<string, Tensor> {
  const caches: Record<string, Tensor> = {};
  for (const input of session.inputMetadata) {
    if (!input.isTensor || !input.name.startsWith("past_")) continue;
    const dims = input.shape.map((size) => (typeof size === "number" ? size : size === "batch_size" ? 1 : rows));
    const count = dims.reduce((a, b) => a * b, 1);
    caches[input.name] = new Tensor("float32", new Float32Array(count).fill(0.01), dims);
  }
  return caches;
}

/** One token after `context` others, whose caches come in and go out as new arrays. */
function growingStep(session: InferenceSession, context: number): () => Promise<void> {
  const feeds = {
    input_ids: int64([3], [1, 1]),
    attention_mask: int64(new Array<number>(context + 1).fill(1), [1, context + 1]),
    position_ids: int64([context], [1, 1]),
    ...cachesOf(session, context),
  };
  return async () => {
    await session.run(feeds);
  };
}

/** The same, written into the arrays that come in. */
function fixedStep(session: InferenceSession, context: number, capacity: number, vocabularySize: number) {
  const caches = cachesOf(session, capacity);
  const feeds = {
    input_ids: int64([3], [1, 1]),
    cache_lengths: int64([context], [1]),
    logits_indices: int64([0], [1]),
  };
  const present = Object.entries(caches).map(([name, tensor]) => [name.replace("past_key_values", "present"), tensor]);
  const logits = new Tensor("float32", new Float32Array(vocabularySize), [1, vocabularySize]);
  return async () => {
    try {
      await session.run({ ...feeds, ...caches }, { done: null, logits, ...Object.fromEntries(present) });
    } catch (error) {
      if (!(error instanceof Error && error.message.includes("Non tensor type"))) throw error;
    }
  };
}

const { values } = parseArgs({
  options: {
    family: { type: "string", default: "sisa" },
    size: { type: "string", default: "50m" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "8" },
    dtypes: { type: "string", default: "float32" },
    contexts: { type: "string", default: "64,256,1024,2047" },
  },
});
const config = preset(values.family as Family, values.size as PresetSize);
const model = languageModel(config);
const dtypes = values.dtypes.split(",") as WeightType[];
const contexts = values.contexts.split(",").map(Number);
const files = await exportOnnx({ model, parameters: initialize(model, 1) }, { dtypes });
const before = load();
const results: Record<string, unknown>[] = [];
for (const [name, bytes] of Object.entries(files)) {
  if (!name.endsWith(".onnx")) continue;
  const isFixed = name.includes("fixed");
  const session = await InferenceSession.create(bytes, {
    intraOpNumThreads: Number(values.threads),
    logSeverityLevel: 4,
  });
  const lengths = isFixed ? contexts : [0, ...contexts];
  const timed = lengths.map((context) => ({
    context,
    times: [] as number[],
    step: isFixed
      ? fixedStep(session, context, config.maximumLength, config.vocabularySize)
      : growingStep(session, context),
  }));
  // The first runs allocate.
  for (const { step } of timed) await step();
  const measurements = timed.map(({ step, times }) => async () => {
    const start = performance.now();
    await step();
    times.push(performance.now() - start);
  });
  await alternating(Number(values.rounds), measurements);
  for (const { context, times } of timed)
    results.push({ file: name, context, median: rounded(median(times)), best: rounded(least(times)) });
  await session.release();
}
const cells = results.map(({ file, context, median: middle, best }) => [
  String(file),
  String(context),
  String(middle),
  String(best),
]);
process.stdout.write(`${table(["file", "context", "median ms", "best ms"], cells)}\n`);
const settings = { family: values.family, size: values.size, threads: Number(values.threads), load: [before, load()] };
process.stdout.write(`${JSON.stringify({ ...settings, results })}\n`);
