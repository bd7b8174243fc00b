// Continues a text with a model that `sisa export` wrote, by the likeliest token at each step.
//
//   npm install && npm start -- EXPORT_FOLDER "Once upon a time" 50
//
// PROVIDERS=cuda,cpu npm start -- ... runs on a GPU, where onnxruntime-node has its CUDA libraries: Linux x64, CUDA 12 and
// cuDNN 9, and ONNXRUNTIME_NODE_INSTALL=cuda12 npm install.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-node";

const [folder, prompt, count = "50"] = process.argv.slice(2);
if (folder === undefined || prompt === undefined) throw new Error("expected: EXPORT_FOLDER PROMPT [TOKENS]");

const json = async (name: string) => JSON.parse(await readFile(join(folder, name), "utf8"));
const tokenizer = new Tokenizer(await json("tokenizer.json"), await json("tokenizer_config.json"));
const { eos_token_id: endOfText } = await json("generation_config.json");
const executionProviders = (process.env.PROVIDERS ?? "cpu").split(",");
const model = join(folder, "onnx/model.onnx");
const session = await ort.InferenceSession.create(model, { executionProviders }).catch((cause: unknown) => {
  if (!executionProviders.includes("cuda")) throw cause;
  throw new Error(
    "cuda does not start; on Linux x64 with CUDA 12 and cuDNN 9, ONNXRUNTIME_NODE_INSTALL=cuda12 npm install gets it",
    { cause },
  );
});

const int64 = (values: readonly number[]) =>
  new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);

// Caches begin with no rows, states with zeros.
let caches: Record<string, ort.Tensor> = {};
for (const input of session.inputMetadata) {
  if (!input.isTensor || !input.name.startsWith("past_")) continue;
  const sizes: Record<string, number> = { batch_size: 1, past_sequence_length: 0 };
  const dims = input.shape.map((size) => (typeof size === "number" ? size : (sizes[size] ?? 0)));
  caches[input.name] = new ort.Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
}

const generated: number[] = [];
let next: number[] = tokenizer.encode(prompt).ids;
for (let length = next.length; generated.length < Number(count); length++) {
  const feeds: Record<string, ort.Tensor> = {
    input_ids: int64(next),
    attention_mask: int64(new Array(length).fill(1)),
    ...caches,
  };
  // Models whose layers all keep states have no use for positions.
  if (session.inputNames.includes("position_ids")) {
    feeds.position_ids = int64(next.map((_, index) => length - next.length + index));
  }
  const results = await session.run(feeds);
  caches = {};
  for (const [name, tensor] of Object.entries(results)) {
    const past = name.replace("present_", "past_").replace("present.", "past_key_values.");
    if (past !== name) caches[past] = tensor as ort.Tensor;
  }
  const logits = results.logits as ort.Tensor;
  const last = (logits.data as Float32Array).subarray(-(logits.dims[2] ?? 0));
  const token = last.indexOf(last.reduce((a, b) => Math.max(a, b)));
  if (token === endOfText) break;
  generated.push(token);
  next = [token];
}
console.log(tokenizer.decode(generated, { skip_special_tokens: true }));
