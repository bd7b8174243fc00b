// Exported decoders against the logits that training sees: prefill, then 64 cached steps, in batches of unequal lengths.

import { i32, initialize, type LanguageModel, languageModel, preset, RandomStream } from "@sisa/core";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { beforeAll, describe, expect, test } from "vitest";
import { exportOnnx, onnxruntime } from "../index.ts";

const vocabularySize = 31;
const steps = 64;
/** Prompts on both sides of a block of 64, and one token alone. */
const lengths = [5, 70, 1, 64];

const sizes = { vocabularySize, width: 16, heads: 2, layers: 2, stateWidth: 4, maximumLength: 160 };
const models = {
  sisa: preset("sisa", "1m", sizes),
  transformer: preset("transformer", "1m", sizes),
  mixed: { ...preset("sisa", "1m", sizes), mixers: ["attention", "sisa"] as const },
};

const rows = lengths.map((length, row) => {
  const random = new RandomStream(row, "ids");
  return Array.from({ length: length + steps }, (_, index) => random.below(vocabularySize, index));
});

/** Weights ten times as large as at first, so that decays and phases matter. */
function parametersOf(model: LanguageModel): Record<string, Float32Array> {
  const parameters = initialize(model, 7);
  for (const [name, values] of Object.entries(parameters)) {
    if (/embed|theta|alpha|W_|lambda/.test(name)) parameters[name] = values.map((value) => value * 10);
    if (name.endsWith("alpha_proj.bias")) parameters[name] = values.map((_, head) => -5 + 4 * head);
  }
  return parameters;
}

/** Logits of every position of every row, as the trainer computes them. */
async function expectedLogits(model: LanguageModel, parameters: Record<string, Float32Array>) {
  await using backend = await onnxruntime({ threads: 1 });
  const graph = model.logitsGraph();
  const constants = Object.fromEntries(Object.entries(graph.inputs).map(([name]) => [name, parameters[name]]));
  const executable = await backend.compile(graph, { constants });
  const result: Float32Array[] = [];
  for (const ids of rows) {
    const feeds = { ids: backend.tensor(i32(1, ids.length), Int32Array.from(ids)) };
    result.push((await executable.run(feeds as never).logits.read()) as Float32Array);
  }
  return result;
}

const int64 = (values: readonly number[], dims: readonly number[]) =>
  new Tensor("int64", BigInt64Array.from(values, BigInt), dims);

function worstDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let worst = 0;
  for (let i = 0; i < expected.length; i++)
    worst = Math.max(worst, Math.abs((actual[i] ?? NaN) - (expected[i] ?? NaN)));
  return worst;
}

describe.each(Object.keys(models) as (keyof typeof models)[])("decoders of %s", (name) => {
  const model = languageModel(models[name]);
  const parameters = parametersOf(model);
  let files: { readonly [path: string]: Uint8Array };
  let expected: readonly Float32Array[];
  /** Logits that follow `position` in `row`. */
  const expectedAt = (row: number, position: number) =>
    (expected[row] ?? new Float32Array()).subarray(position * vocabularySize, (position + 1) * vocabularySize);
  beforeAll(async () => {
    files = await exportOnnx({ model, parameters });
    expected = await expectedLogits(model, parameters);
  });
  const open = (file: string) =>
    InferenceSession.create(files[file] ?? new Uint8Array(), { intraOpNumThreads: 1, logSeverityLevel: 4 });

  test.each(["left", "right"])("model.onnx, rows padded on the %s", async (side) => {
    const session = await open("onnx/model.onnx");
    const batch = rows.length;
    const longest = Math.max(...lengths);
    const padding = lengths.map((length) => longest - length);
    const placed = rows.map((ids, row) => {
      const zeros = new Array<number>(padding[row] ?? 0).fill(0);
      const prompt = ids.slice(0, lengths[row]);
      return side === "left" ? [...zeros, ...prompt] : [...prompt, ...zeros];
    });
    const mask = lengths.map((length, row) => {
      const [ones, zeros] = [new Array<number>(length).fill(1), new Array<number>(padding[row] ?? 0).fill(0)];
      return side === "left" ? [...zeros, ...ones] : [...ones, ...zeros];
    });
    const positions = mask.map((kept) => {
      let position = 0;
      return kept.map((one) => (one ? position++ : 0));
    });
    let caches = emptyCaches(session, batch, 0);
    const run = async (ids: readonly (readonly number[])[], at: readonly (readonly number[])[]) => {
      const shape = [batch, ids[0]?.length ?? 0];
      const results = await session.run({
        input_ids: int64(ids.flat(), shape),
        attention_mask: int64(mask.flat(), [batch, mask[0]?.length ?? 0]),
        position_ids: int64(at.flat(), shape),
        ...caches,
      });
      caches = pastOf(results);
      return results.logits?.data as Float32Array;
    };

    const prefill = await run(placed, positions);
    let worst = 0;
    for (const [row, length] of lengths.entries()) {
      for (let position = 0; position < length; position++) {
        const place = row * longest + position + (side === "left" ? (padding[row] ?? 0) : 0);
        const logits = prefill.subarray(place * vocabularySize, (place + 1) * vocabularySize);
        worst = Math.max(worst, worstDifference(logits, expectedAt(row, position)));
      }
    }
    expect(worst).toBeLessThan(2e-5);
    for (let step = 0; step < steps; step++) {
      for (const kept of mask) kept.push(1);
      const at = lengths.map((length) => [length + step]);
      const ids = rows.map((row, index) => [row[(lengths[index] ?? 0) + step] ?? 0]);
      const logits = await run(ids, at);
      for (const [row, length] of lengths.entries()) {
        const own = logits.subarray(row * vocabularySize, (row + 1) * vocabularySize);
        worst = Math.max(worst, worstDifference(own, expectedAt(row, length + step)));
      }
    }
    expect(worst).toBeLessThan(2e-5);
    await session.release();
  });

  test("model_fixed.onnx, rows padded at the end, caches written in place", async () => {
    const session = await open("onnx/model_fixed.onnx");
    const batch = rows.length;
    const longest = Math.max(...lengths);
    const caches = emptyCaches(session, batch, sizes.maximumLength);
    const logits = new Tensor("float32", new Float32Array(batch * vocabularySize), [batch, vocabularySize]);
    // The arrays that go in are those that come out.
    const present = Object.entries(caches).map(([cache, tensor]) => [
      cache.replace("past_key_values", "present"),
      tensor,
    ]);
    const fetches = { done: null, logits, ...Object.fromEntries(present) };
    let worst = 0;
    const step = async (ids: readonly (readonly number[])[], starts: readonly number[], last: readonly number[]) => {
      const feeds = {
        input_ids: int64(ids.flat(), [batch, ids[0]?.length ?? 0]),
        cache_lengths: int64(starts, [batch]),
        logits_indices: int64(last, [batch]),
        ...caches,
      };
      // onnxruntime-node stops at the sequence "done" before it copies what is written already.
      await expect(session.run(feeds, fetches)).rejects.toThrow("Non tensor type");
      for (const row of rows.keys()) {
        const own = (logits.data as Float32Array).subarray(row * vocabularySize, (row + 1) * vocabularySize);
        worst = Math.max(worst, worstDifference(own, expectedAt(row, (starts[row] ?? 0) + (last[row] ?? 0))));
      }
    };
    const prompts = rows.map((ids, row) => {
      const prompt = ids.slice(0, lengths[row]);
      return [...prompt, ...new Array<number>(longest - prompt.length).fill(0)];
    });
    const zeros = lengths.map(() => 0);
    await step(
      prompts,
      zeros,
      lengths.map((length) => length - 1),
    );
    for (let index = 0; index < steps; index++) {
      const starts = lengths.map((length) => length + index);
      await step(
        rows.map((ids, row) => [ids[starts[row] ?? 0] ?? 0]),
        starts,
        zeros,
      );
    }
    expect(worst).toBeLessThan(2e-5);
    await session.release();
  });
});

/** Zeros for every cache. */
function emptyCaches(session: InferenceSession, batch: number, length: number): Record<string, Tensor> {
  const caches: Record<string, Tensor> = {};
  for (const input of session.inputMetadata) {
    if (!input.isTensor || !input.name.startsWith("past_key_values.")) continue;
    const dims = input.shape.map((size) => (typeof size === "number" ? size : size === "batch_size" ? batch : length));
    caches[input.name] = new Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
  }
  return caches;
}

/** The caches that came out, as those that go in next. */
function pastOf(results: InferenceSession.OnnxValueMapType): Record<string, Tensor> {
  const present = Object.entries(results).filter(([name]) => name.startsWith("present."));
  return Object.fromEntries(
    present.map(([name, tensor]) => [name.replace("present", "past_key_values"), tensor as Tensor]),
  );
}
