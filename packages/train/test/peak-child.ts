// A process that takes three training steps on ONNX Runtime and prints the most memory it held, in KiB, and the losses.
import { languageModel } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { Trainer } from "../src/trainer.ts";
import { resolvedTiny } from "./tiny.ts";

const sequenceLength = 256;
const microBatchSize = 16;
const model = languageModel({
  mixers: Array.from({ length: 8 }, () => "sisa" as const),
  vocabularySize: 64,
  width: 128,
  heads: 4,
  feedForwardWidth: 512,
  stateWidth: 4,
  form: "exact",
  maximumLength: sequenceLength,
  ropeBase: 10_000,
  normEpsilon: 1e-6,
});
const settings = resolvedTiny({ sequenceLength, microBatchSize, rematerialize: process.argv[2] });
const ids = Int32Array.from({ length: microBatchSize * sequenceLength }, (_, index) => (index * 7) % 61);
await using backend = await onnxruntime({ threads: 2 });
await using trainer = await Trainer.create({ model, backend, settings, batches: () => ({ ids, targets: ids }) });
// The first step of warm-up changes nothing, so that only the third loss depends on a gradient.
const { records } = await trainer.advance(3);
const losses = records.map((record) => record.loss);
process.stdout.write(JSON.stringify({ kilobytes: process.resourceUsage().maxRSS, losses }));
