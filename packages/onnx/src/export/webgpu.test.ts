// The exported decoder on ONNX Runtime's WebGPU provider, over SwiftShader: its logits, and where its nodes are placed.

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { useTestGpu } from "@sisa/browser-testing/node";
import { languageModel } from "@sisa/core";
import * as ort from "onnxruntime-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { exportOnnx, graphToOnnx } from "../index.ts";
import { growingDifference, largeParameters, models, trainerLogits } from "./testing.ts";

/** What is read of an event in ONNX Runtime's profile. */
interface ProfileEvent {
  readonly cat: string;
  readonly args?: {
    readonly provider?: string;
    readonly op_name?: string;
    readonly output_type_shape?: readonly { readonly [type: string]: readonly number[] }[];
  };
}

let folder: string;
beforeAll(async () => {
  await useTestGpu();
  folder = await mkdtemp(join(tmpdir(), "sisa-webgpu-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs a model on WebGPU; gives back which operators that compute floats ran where. */
async function floatNodes(model: Uint8Array, run: (session: ort.InferenceSession) => Promise<void>) {
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ["webgpu"],
    enableProfiling: true,
    profileFilePrefix: join(folder, "profile"),
    logSeverityLevel: 4,
  });
  await run(session);
  session.endProfiling();
  await session.release();
  const [profile = ""] = await readdir(folder);
  const events = JSON.parse(await readFile(join(folder, profile), "utf8")) as readonly ProfileEvent[];
  await rm(join(folder, profile));
  const placed = { webgpu: new Set<string>(), elsewhere: new Set<string>() };
  for (const { cat, args } of events) {
    const isFloat = args?.output_type_shape?.some((output) => /float|double/.test(Object.keys(output).join()));
    if (cat !== "Node" || !isFloat) continue;
    placed[args?.provider === "WebGpuExecutionProvider" ? "webgpu" : "elsewhere"].add(args?.op_name ?? "");
  }
  return placed;
}

test("gives the trainer's logits, with every float node on WebGPU", async () => {
  const model = languageModel(models.mixed);
  const parameters = largeParameters(model);
  const files = await exportOnnx({ model, parameters });
  const expected = await trainerLogits(model, parameters);
  let worst = Number.NaN;
  const placed = await floatNodes(files["onnx/model.onnx"] ?? new Uint8Array(), async (session) => {
    worst = await growingDifference(ort, session, expected);
  });
  expect(worst).toBeLessThan(5e-5);
  expect([...placed.elsewhere]).toEqual([]);
  expect([...placed.webgpu]).toEqual(expect.arrayContaining(["MatMul", "Softmax", "CumSum", "RotaryEmbedding"]));
});

test("sees nodes that the provider leaves to the CPU", async () => {
  const { f32, sin, exp, trace } = await import("@sisa/core");
  const model = graphToOnnx(trace({ x: f32(3) }, ({ x }) => exp(sin(exp(x)))));
  const placed = await floatNodes(model, async (session) => {
    await session.run({ x: new ort.Tensor("float32", Float32Array.of(1, 2, 3), [3]) });
  });
  expect([...placed.elsewhere]).toEqual(["Sin"]);
  expect([...placed.webgpu]).toEqual(expect.arrayContaining(["Exp"]));
});
