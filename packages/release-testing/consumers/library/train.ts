// Ten steps of training, a sample, a model folder, and its export.
import { languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { loadModel } from "@sisa/hub/node";
import * as onnx from "@sisa/onnx";
import { onnxruntime as openBackend } from "@sisa/onnx";
import { textDocuments, train } from "@sisa/train";

const tokenizer = byteTokenizer();
const sizes = { layers: 1, width: 16, heads: 2, stateWidth: 4, feedForwardWidth: 32, maximumLength: 64 };
const model = languageModel(preset("sisa", "1m", { vocabularySize: tokenizer.size, ...sizes }));
const data = textDocuments(["one two three four five six seven eight nine ten ".repeat(40)], tokenizer);
const backend = await openBackend();
const run = await train({ model, backend, data, steps: 10, sequenceLength: 32, microBatchSize: 2 });
const sample = await run.sample("one ", { maxTokens: 5, temperature: 0 });
await run.save("my-model");
await backend.close();
const files = await onnx.exportOnnx(await loadModel("my-model"));
console.log(
  JSON.stringify({ backend: backend.name, steps: run.step, loss: run.heldOutLoss, sample, files: Object.keys(files) }),
);
