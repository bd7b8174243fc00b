// Stored weights: what they stand for, and what the files compute with them.

import { fromFloat16Bits, i32, initialize, languageModel, preset, toFloat16Bits } from "@sisa/core";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { beforeAll, describe, expect, test } from "vitest";
import { type Difference, type ExportedFiles, exportOnnx, onnxruntime } from "../index.ts";

const vocabularySize = 96;
const model = languageModel(
  preset("sisa", "1m", { vocabularySize, width: 64, heads: 2, layers: 2, stateWidth: 8, maximumLength: 64 }),
);
const parameters = initialize(model, 3);
for (const [name, values] of Object.entries(parameters)) {
  if (/W_|ffn|embed/.test(name)) parameters[name] = values.map((value) => value * 3);
}
const ids = Int32Array.from({ length: 40 }, (_, index) => (index * index + 5) % vocabularySize);

async function trainerLogits(weights: Record<string, Float32Array>): Promise<Float32Array> {
  await using backend = await onnxruntime({ threads: 1 });
  const graph = model.logitsGraph();
  const executable = await backend.compile(graph, { constants: weights });
  const feeds = { ids: backend.tensor(i32(1, ids.length), ids) };
  return (await executable.run(feeds as never).logits.read()) as Float32Array;
}

async function fileLogits(bytes: Uint8Array, options: InferenceSession.SessionOptions = {}): Promise<Float32Array> {
  const session = await InferenceSession.create(bytes, { intraOpNumThreads: 1, logSeverityLevel: 4, ...options });
  const int64 = (values: ArrayLike<number>) =>
    new Tensor("int64", BigInt64Array.from(Array.from(values), BigInt), [1, values.length]);
  const caches = session.inputMetadata.flatMap((input) => {
    if (!input.isTensor || !input.name.startsWith("past_key_values.")) return [];
    const dims = input.shape.map((size) => (typeof size === "number" ? size : size === "batch_size" ? 1 : 0));
    return [[input.name, new Tensor("float32", new Float32Array(0), dims)]];
  });
  const { logits } = await session.run({
    input_ids: int64(ids),
    attention_mask: int64(ids.map(() => 1)),
    position_ids: int64(ids.map((_, index) => index)),
    ...Object.fromEntries(caches),
  });
  await session.release();
  return logits?.data as Float32Array;
}

/** Root mean square of differences, beside that of what is expected. */
function relativeError(actual: Float32Array, expected: Float32Array): number {
  const power = (values: Float32Array) => values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(power(actual.map((value, i) => value - (expected[i] ?? Number.NaN))) / power(expected));
}

let files: ExportedFiles;
let original: Float32Array;
beforeAll(async () => {
  files = await exportOnnx({ model, parameters }, { dtypes: ["float32", "float16", "int8", "int4"] });
  original = await trainerLogits(parameters);
});
const file = (name: string): Uint8Array => files[`onnx/${name}`] ?? new Uint8Array();

describe("exportOnnx with dtypes", () => {
  test("writes two files for each, smaller ones for fewer bits", () => {
    const names = ["model", "model_fixed"].flatMap((name) =>
      ["", "_fp16", "_int8", "_q4"].map((end) => `onnx/${name}${end}.onnx`),
    );
    expect(Object.keys(files).sort()).toEqual([...names, "README.md", "onnx/report.json"].sort());
    const lengths = ["model.onnx", "model_fp16.onnx", "model_int8.onnx", "model_q4.onnx"].map(
      (name) => file(name).length,
    );
    expect(lengths).toEqual(lengths.toSorted((a, b) => b - a));
  });

  test("float16 computes with the rounded weights, and keeps what is summed", async () => {
    const rounded = Object.fromEntries(
      Object.entries(parameters).map(([name, values]) => {
        const kept = model.parameters[name]?.shape.length !== 2 || /theta|alpha/.test(name);
        return [name, kept ? values : values.map((value) => fromFloat16Bits(toFloat16Bits(value)))];
      }),
    );
    const logits = await fileLogits(file("model_fp16.onnx"));
    expect(relativeError(logits, await trainerLogits(rounded))).toBeLessThan(1e-6);
    expect(relativeError(logits, original)).toBeGreaterThan(1e-5);
  });

  test.each([
    ["model.onnx", 0, 1e-6],
    ["model_fp16.onnx", 1e-5, 1e-3],
    ["model_int8.onnx", 1e-3, 8e-2],
    ["model_q4.onnx", 1e-2, 3.5e-1],
  ])("%s is off by as much as its bits", async (name, least, most) => {
    const error = relativeError(await fileLogits(file(name)), original);
    expect(error).toBeGreaterThanOrEqual(least);
    expect(error).toBeLessThan(most);
  });

  test("puts large weights into one file that both decoders share", async () => {
    const apart = await exportOnnx({ model, parameters }, { dtypes: ["float32", "int4"], largestFileBytes: 20_000 });
    for (const suffix of ["", "_q4"]) {
      const whole = file(`model${suffix}.onnx`);
      const data = apart[`onnx/model${suffix}.onnx_data`] ?? new Uint8Array();
      const small = apart[`onnx/model${suffix}.onnx`] ?? new Uint8Array();
      expect(small.length + data.length).toBeLessThan(whole.length * 1.8);
      const externalData = [{ path: `model${suffix}.onnx_data`, data: Buffer.from(data) }];
      expect(await fileLogits(small, { externalData })).toEqual(await fileLogits(whole));
      const fixed = apart[`onnx/model_fixed${suffix}.onnx`] ?? new Uint8Array();
      const session = await InferenceSession.create(fixed, { externalData, logSeverityLevel: 4 });
      expect(session.outputNames).toContain("logits");
      await session.release();
    }
  });

  test("measures what each dtype changes, and writes it down", async () => {
    const heldOut = Array.from({ length: 300 }, (_, index) => (index * index + 3 * index) % vocabularySize);
    const measured = await exportOnnx({ model, parameters }, { dtypes: ["float32", "int8"], heldOut });
    const text = (path: string) => new TextDecoder().decode(measured[path]);
    const { variants } = JSON.parse(text("onnx/report.json"));
    const [float32, int8] = variants.map(({ difference }: { difference: Difference }) => difference);
    expect(float32.largestLogitDifference).toBeLessThan(1e-5);
    expect(float32.sameToken).toBe(1);
    expect(float32.heldOutLoss).toBeCloseTo(float32.originalLoss, 6);
    expect(int8.originalLoss).toBe(float32.originalLoss);
    expect(int8.meanLogitDifference).toBeGreaterThan(1e-4);
    expect(Math.abs(int8.heldOutLoss - int8.originalLoss)).toBeGreaterThan(1e-5);
    // The loss over the windows that are measured, computed another way.
    await using backend = await onnxruntime({ threads: 1 });
    const graph = model.lossGraph();
    const executable = await backend.compile(graph);
    const length = 64;
    let sum = 0;
    for (let window = 0; window < 4; window++) {
      const start = Math.floor((window * 299) / 4);
      const part = (from: number) =>
        backend.tensor(i32(1, length), Int32Array.from(heldOut.slice(from, from + length)));
      const weights = Object.entries(parameters).map(([name, data]) => [
        name,
        backend.tensor(graph.inputs[name] as never, data),
      ]);
      const feeds = { ...Object.fromEntries(weights), ids: part(start), targets: part(start + 1) };
      sum += (await executable.run(feeds).value.read())[0] ?? Number.NaN;
    }
    expect(float32.originalLoss).toBeCloseTo(sum / 4, 5);
    expect(text("README.md")).toContain(`| int8 | onnx/model_int8.onnx | `);
    expect(text("README.md")).toContain(` | ${int8.heldOutLoss.toFixed(4)} | `);
    expect(new TextDecoder().decode(files["README.md"])).toContain("| not measured |");
  });

  test("refuses other dtypes, and weights that a dtype cannot hold", async () => {
    await expect(exportOnnx({ model, parameters }, { dtypes: ["float64" as never] })).rejects.toThrow(
      'export: expected dtypes of float32, float16, int8, int4, got "float64"',
    );
    const name = "layers.0.W_Q.weight";
    const spoilt = (value: number) => ({
      model,
      parameters: { ...parameters, [name]: parameters[name]?.with(5, value) as Float32Array },
    });
    await expect(exportOnnx(spoilt(1e5), { dtypes: ["float16"] })).rejects.toThrow(`"${name}" has values above 65504`);
    await expect(exportOnnx(spoilt(Number.NaN), { dtypes: ["int8"] })).rejects.toThrow("not finite");
  });
});
