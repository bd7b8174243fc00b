// Exported decoders against the logits that training sees: prefill, then 64 cached steps, in batches of unequal lengths.

import { fromBinary } from "@bufbuild/protobuf";
import { languageModel } from "@sisa/core";
import { ModelProtoSchema } from "onnx-buf";
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
  pastName,
  rows,
  steps,
  trainerLogits,
  vocabularySize,
} from "./testing.ts";

/** The bytes of an exported file, run on one thread. */
const open = (files: ExportedFiles, file: string) =>
  ort.InferenceSession.create(files[file] ?? new Uint8Array(), { intraOpNumThreads: 1, logSeverityLevel: 4 });

/**
 * Runs model_fixed.onnx over the prompts, padded at their ends, then one token of each row at a time. Rows of caches are
 * written where they are; states take turns between two arrays.
 * @returns the largest difference from the trainer's logits, over the last token of every run
 */
async function fixedDifference(
  session: ort.InferenceSession,
  expected: readonly Float32Array[],
  prefix: readonly number[],
): Promise<number> {
  const batch = rows.length;
  const caches = emptyCaches(ort, session, batch, maximumLength);
  const others = emptyCaches(ort, session, batch, maximumLength);
  const logits = new ort.Tensor("float32", new Float32Array(batch * vocabularySize), [batch, vocabularySize]);
  const isState = new Map(
    session.inputMetadata.flatMap((input) => (input.isTensor ? [[input.name, !input.shape.includes("capacity")]] : [])),
  );
  const present = session.outputNames.filter((name) => name.startsWith("present"));
  let worst = 0;
  const step = async (ids: readonly (readonly number[])[], starts: readonly number[], last: readonly number[]) => {
    const feeds = {
      input_ids: int64(ort, ids.flat(), [batch, ids[0]?.length ?? 0]),
      cache_lengths: int64(ort, starts, [batch]),
      logits_indices: int64(ort, last, [batch]),
      ...caches,
    };
    const fetches: Record<string, ort.Tensor | null> = { done: null, logits };
    for (const name of present) {
      const past = pastName(name);
      fetches[name] = (isState.get(past) ? others[past] : caches[past]) ?? null;
    }
    // onnxruntime-node stops at the sequence "done" before it copies what is written already.
    await expect(session.run(feeds, fetches)).rejects.toThrow("Non tensor type");
    for (const [name, tensor] of Object.entries(caches)) {
      if (!isState.get(name)) continue;
      caches[name] = others[name] as ort.Tensor;
      others[name] = tensor;
    }
    for (const row of rows.keys()) {
      const position = (starts[row] ?? 0) + (last[row] ?? 0) - prefix.length;
      worst = Math.max(worst, difference(logits.data as Float32Array, row, expected, row, position));
    }
  };
  const prompts = rows.map((ids, row) => {
    const prompt = [...prefix, ...ids.slice(0, lengths[row])];
    return [...prompt, ...new Array<number>(prefix.length + longest - prompt.length).fill(0)];
  });
  const zeros = lengths.map(() => 0);
  await step(
    prompts,
    zeros,
    lengths.map((length) => prefix.length + length - 1),
  );
  for (let index = 0; index < steps; index++) {
    const starts = lengths.map((length) => length + index);
    await step(
      rows.map((ids, row) => [ids[starts[row] ?? 0] ?? 0]),
      starts.map((start) => prefix.length + start),
      zeros,
    );
  }
  return worst;
}

describe.each(Object.keys(models) as (keyof typeof models)[])("decoders of %s", (name) => {
  const model = languageModel(models[name]);
  const { prefix } = model;
  let files: ExportedFiles;
  let expected: readonly Float32Array[];
  beforeAll(async () => {
    const parameters = largeParameters(model);
    files = await exportOnnx({ model, parameters });
    expected = await trainerLogits(model, parameters);
  });

  test.each(["left", "right"] as const)("model.onnx, rows padded on the %s", async (side) => {
    const session = await open(files, "onnx/model.onnx");
    expect(await growingDifference(ort, session, expected, { side, prefix })).toBeLessThan(2e-5);
    await session.release();
  });

  test("model_fixed.onnx, rows padded at the end, caches written in place", async () => {
    if (name === "mamba2" || name === "mamba3") {
      expect(files).not.toHaveProperty(["onnx/model_fixed.onnx"]);
      return;
    }
    const session = await open(files, "onnx/model_fixed.onnx");
    expect(await fixedDifference(session, expected, prefix)).toBeLessThan(2e-5);
    await session.release();
  });
});

test.each(["sisa", "mixed", "hybrid by layer"] as const)("importance weighs in the logits of %s", async (name) => {
  const model = languageModel(models[name]);
  const parameters = largeParameters(model);
  const without = Object.entries(parameters).map(([entry, values]) => [
    entry,
    entry.endsWith("lambda_raw") ? values.map(() => -100) : values,
  ]);
  const logits = await trainerLogits(model, parameters);
  const others = await trainerLogits(model, Object.fromEntries(without));
  // The first token sees itself alone, whatever its score.
  const changes = rows.flatMap((ids, row) =>
    ids.slice(1).map((_, index) => {
      const own = logits[row]?.subarray((index + 1) * vocabularySize) ?? new Float32Array();
      return difference(own, 0, others, row, index + 1);
    }),
  );
  // A hundred times what files may differ by.
  expect(Math.min(...changes)).toBeGreaterThan(2e-3);
});

describe("form sdpa", () => {
  const formed = (form: "exact" | "sdpa") =>
    languageModel({ ...models.mixed, mixers: ["sisa", "attention", "sisa"], form });

  test.each(["left", "right"] as const)(
    "equals the trainer's own while no clamp is active, rows padded on the %s",
    async (side) => {
      const model = formed("sdpa");
      const parameters = withBias(largeParameters(model), -6);
      const files = await exportOnnx({ model, parameters }, { form: "sdpa" });
      const expected = await trainerLogits(model, parameters);
      const session = await open(files, "onnx/model.onnx");
      expect(await growingDifference(ort, session, expected, { side })).toBeLessThan(2e-5);
      await session.release();
      if (side === "left") return;
      const fixed = await open(files, "onnx/model_fixed.onnx");
      expect(await fixedDifference(fixed, expected, [])).toBeLessThan(2e-5);
      await fixed.release();
    },
  );

  test("clamps a prefill as the trainer does, which form exact does not", async () => {
    const model = formed("sdpa");
    const parameters = withBias(largeParameters(model), 1);
    const exact = await trainerLogits(formed("exact"), parameters);
    const files = await exportOnnx({ model, parameters }, { form: "sdpa" });
    const session = await open(files, "onnx/model.onnx");
    const ids = rows[1] ?? [];
    const results = await session.run({
      input_ids: int64(ort, ids, [1, ids.length]),
      attention_mask: int64(
        ort,
        ids.map(() => 1),
        [1, ids.length],
      ),
      position_ids: int64(ort, [...ids.keys()], [1, ids.length]),
      ...emptyCaches(ort, session, 1, 0),
    });
    await session.release();
    const expected = await trainerLogits(model, parameters);
    const logits = results.logits?.data as Float32Array;
    const worst = (of: readonly Float32Array[]) =>
      Math.max(...ids.map((_, position) => difference(logits, position, of, 1, position)));
    expect(worst(expected)).toBeLessThan(2e-5);
    expect(worst(exact)).toBeGreaterThan(1e-2);
  });

  test("is one stock Attention per layer, and neither form has control flow", async () => {
    const model = formed("sdpa");
    const parameters = largeParameters(model);
    for (const [form, count] of [
      ["exact", 0],
      ["sdpa", 3],
    ] as const) {
      const files = await exportOnnx({ model, parameters }, { form });
      for (const file of ["onnx/model.onnx", "onnx/model_fixed.onnx"]) {
        expect(operatorsOf(files[file] ?? new Uint8Array()).filter((type) => type === "Attention")).toHaveLength(count);
      }
    }
  });

  test("is refused where it is none", async () => {
    const model = formed("exact");
    const exporting = exportOnnx({ model, parameters: largeParameters(model) }, { form: "fast" as never });
    await expect(exporting).rejects.toThrow('export: expected form "exact" or "sdpa", got "fast"');
  });
});

/** Decay of every token about that of one bias. */
function withBias(parameters: Record<string, Float32Array>, bias: number): Record<string, Float32Array> {
  const entries = Object.entries(parameters).map(([name, values]) => {
    if (name.endsWith("alpha_proj.bias")) return [name, values.map(() => bias)];
    return [name, name.endsWith("alpha_proj.weight") ? values.map((value) => value / 10) : values];
  });
  return Object.fromEntries(entries);
}

function operatorsOf(bytes: Uint8Array): readonly string[] {
  return fromBinary(ModelProtoSchema, bytes).graph?.node.map(({ opType }) => opType) ?? [];
}

test("refuses Mamba-1 by name", async () => {
  const model = languageModel({ ...models.sisa, mixers: ["mamba", "attention"] });
  await expect(exportOnnx({ model, parameters: {} })).rejects.toThrow("layers of kind mamba are not exported");
});
