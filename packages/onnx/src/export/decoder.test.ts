// Exported decoders against the logits that training sees: prefill, then 64 cached steps, in batches of unequal lengths.

import { languageModel } from "@sisa/core";
import * as ort from "onnxruntime-node";
import { beforeAll, describe, expect, test } from "vitest";
import { type ExportedFiles, exportOnnx } from "../index.ts";
import {
  difference,
  emptyCaches,
  growingDifference,
  int64,
  largeParameters,
  lengths,
  longest,
  maximumLength,
  models,
  rows,
  steps,
  trainerLogits,
  vocabularySize,
} from "./testing.ts";

describe.each(Object.keys(models) as (keyof typeof models)[])("decoders of %s", (name) => {
  let files: ExportedFiles;
  let expected: readonly Float32Array[];
  beforeAll(async () => {
    const model = languageModel(models[name]);
    const parameters = largeParameters(model);
    files = await exportOnnx({ model, parameters });
    expected = await trainerLogits(model, parameters);
  });
  const open = (file: string) =>
    ort.InferenceSession.create(files[file] ?? new Uint8Array(), { intraOpNumThreads: 1, logSeverityLevel: 4 });

  test.each(["left", "right"] as const)("model.onnx, rows padded on the %s", async (side) => {
    const session = await open("onnx/model.onnx");
    expect(await growingDifference(ort, session, expected, { side })).toBeLessThan(2e-5);
    await session.release();
  });

  test("model_fixed.onnx, rows padded at the end, caches written in place", async () => {
    const session = await open("onnx/model_fixed.onnx");
    const batch = rows.length;
    const caches = emptyCaches(ort, session, batch, maximumLength);
    const logits = new ort.Tensor("float32", new Float32Array(batch * vocabularySize), [batch, vocabularySize]);
    // The arrays that go in are those that come out.
    const present = Object.entries(caches).map(([cache, tensor]) => [
      cache.replace("past_key_values", "present"),
      tensor,
    ]);
    const fetches = { done: null, logits, ...Object.fromEntries(present) };
    let worst = 0;
    const step = async (ids: readonly (readonly number[])[], starts: readonly number[], last: readonly number[]) => {
      const feeds = {
        input_ids: int64(ort, ids.flat(), [batch, ids[0]?.length ?? 0]),
        cache_lengths: int64(ort, starts, [batch]),
        logits_indices: int64(ort, last, [batch]),
        ...caches,
      };
      // onnxruntime-node stops at the sequence "done" before it copies what is written already.
      await expect(session.run(feeds, fetches)).rejects.toThrow("Non tensor type");
      for (const row of rows.keys()) {
        const position = (starts[row] ?? 0) + (last[row] ?? 0);
        worst = Math.max(worst, difference(logits.data as Float32Array, row, expected, row, position));
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
