// Models on this backend beside the reference: cached decoding, devices with low limits, a device that is gone.

import { useTestGpu } from "@sisa/browser-testing/node";
import {
  add,
  Decoder,
  f32,
  i32,
  initialize,
  languageModel,
  type ModelConfig,
  parameterSpecs,
  reference,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { beforeAll, expect, test, vi } from "vitest";
import { type WebgpuBackend, webgpu } from "./backend.ts";
import { DeviceLostError, OutOfMemoryError } from "./errors.ts";
import { changedGpu } from "./testing.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

beforeAll(useTestGpu);

const config: ModelConfig = {
  vocabularySize: 37,
  width: 32,
  heads: 2,
  feedForwardWidth: 40,
  stateWidth: 8,
  form: "exact",
  maximumLength: 160,
  ropeBase: 10000,
  normEpsilon: 1e-6,
  mixers: ["sisa"],
};
const model = languageModel(config);
/**
 * Larger than a trainer starts with, so that heads attend to something; but for decays, which would leave nothing of a
 * gradient of theirs.
 */
const parameters = Object.fromEntries(
  Object.entries(initialize(model, 1)).map(([name, values]) => [
    name,
    name.includes("alpha_proj") ? values : values.map((value) => value * 8),
  ]),
);

const lowered = (limits: Record<string, number>) =>
  changedGpu((device) => {
    const own = Object.fromEntries(
      Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(device.limits))).flatMap(
        ([name, { get }]) => (get && name.startsWith("max") ? [[name, Reflect.apply(get, device.limits, [])]] : []),
      ),
    );
    Object.defineProperty(device, "limits", { value: { ...own, ...limits } });
  });

async function lossAndGradients(backend: Awaited<ReturnType<typeof reference>> | WebgpuBackend) {
  const [batch, length] = [2, 12];
  const graph = valueAndGrad(model.lossGraph(), { wrt: Object.keys(parameters) }).bind({ B: batch, T: length });
  const program = await backend.compile(graph);
  const ids = (shift: number) => Int32Array.from({ length: batch * length }, (_, i) => (i * 11 + shift) % 37);
  const specs = parameterSpecs(model);
  const outputs = program.run({
    ids: backend.tensor(i32(batch, length), ids(0)),
    targets: backend.tensor(i32(batch, length), ids(5)),
    ...Object.fromEntries(
      Object.entries(parameters).map(([name, data]) => [name, backend.tensor(specs[name] ?? f32(), data)]),
    ),
  } as never) as Record<string, { read(): Promise<ArrayLike<number>> }>;
  const results: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries(outputs)) results[name] = Float32Array.from(await tensor.read());
  return results;
}

/** Largest difference of two arrays by the largest element of the second. */
function difference(a: ArrayLike<number> | undefined, b: ArrayLike<number>): number {
  const values = Array.from(b);
  const largest = Math.max(...values.map(Math.abs));
  return Math.max(...values.map((value, index) => Math.abs((a?.[index] ?? Number.NaN) - value))) / (largest || 1);
}

test("cached decoding gives the logits of a pass over all tokens", async () => {
  await using own = await webgpu();
  const tokens = Array.from({ length: 16 }, (_, index) => (index * 7 + 3) % 37);
  await using decoder = await Decoder.create({ model, parameters, backend: own, capacity: 16 });
  await using full = await Decoder.create({ model, parameters, backend: reference(), capacity: 16 });
  // A prompt in one run, then token by token.
  const prompt = tokens.slice(0, 11);
  expect(difference(await decoder.append([prompt], [0]), await full.append([prompt], [0]))).toBeLessThan(1e-4);
  for (let position = 11; position < 15; position++) {
    const next = [tokens[position] ?? 0];
    const logits = await decoder.append([next], [position]);
    expect(difference(logits, await full.append([tokens.slice(0, position + 1)], [0]))).toBeLessThan(1e-4);
  }
  // Chosen tokens, each of which stays on the device until the next one has been asked for.
  const choice = [{ temperature: 0, uniform: 0 }];
  const wanted = [await full.next([prompt], [0], choice), await full.follow(choice), await full.follow(choice)];
  const first = await decoder.next([prompt], [0], choice);
  expect([first, ...(await Promise.all([decoder.follow(choice), decoder.follow(choice)]))]).toEqual(wanted);
});

test("a device with low limits and no optional features gives the same loss and gradients", async () => {
  await using usual = reference();
  await using small = await webgpu({
    without: ["shader-f16", "subgroups"],
    gpu: await lowered({
      maxComputeWorkgroupsPerDimension: 5,
      maxStorageBuffersPerShaderStage: 10,
      maxComputeWorkgroupStorageSize: 16384,
      maxStorageBufferBindingSize: 32768,
    }),
  });
  expect(small.limits.maximumTensorBytes).toBe(32768);
  const [expected, own] = [await lossAndGradients(usual), await lossAndGradients(small)];
  for (const [name, values] of Object.entries(expected)) {
    expect([name, difference(own[name], values) < 2e-4]).toEqual([name, true]);
  }
  expect(() => small.tensor(f32(8193))).toThrow(expect.objectContaining({ code: OutOfMemoryError.code }));
});

test("a device that is gone is named when something is run or read, and a new one works", async () => {
  let device: GPUDevice | undefined;
  const gone = await webgpu({
    gpu: await changedGpu((made) => {
      device = made;
    }),
  });
  const double = trace({ x: f32(3) }, ({ x }) => add(x, x));
  const run = async (backend: WebgpuBackend) => {
    const program = await backend.compile(double);
    return await program.run({ x: backend.tensor(f32(3), Float32Array.of(1, 2, 3)) }).value.read();
  };
  expect([...(await run(gone))]).toEqual([2, 4, 6]);
  const kept = gone.tensor(f32(3));
  device?.destroy();
  await device?.lost;
  const isLost = (error: unknown) => DeviceLostError.isInstance(error) && String(error).includes("webgpu()");
  await expect(run(gone)).rejects.toSatisfy(isLost);
  await expect(kept.read()).rejects.toSatisfy(isLost);
  await gone.close();
  await using next = await webgpu();
  expect([...(await run(next))]).toEqual([2, 4, 6]);
});

test("memory that the device does not have is a typed error at the next read, and the backend goes on", async () => {
  // The device says so itself: no test may take all of a machine's memory.
  await using backend = await webgpu({
    gpu: await changedGpu((device) => {
      const create = device.createBuffer.bind(device);
      const pop = device.popErrorScope.bind(device);
      let full = false;
      device.createBuffer = (descriptor) => {
        full = descriptor.size > 2 ** 20;
        return create(descriptor);
      };
      device.popErrorScope = async () => {
        const wasFull = full;
        full = false;
        const error = await pop();
        // A device may answer long after a later read has its data.
        if (wasFull) await new Promise((resolve) => setTimeout(resolve, 100));
        return wasFull ? ({ message: "out of device memory" } as GPUError) : error;
      };
    }),
  });
  const small = backend.tensor(f32(2), Float32Array.of(1, 2));
  const { deviceBytes } = backend.memory();
  backend.tensor(f32(2 ** 20)).dispose();
  await expect(small.read()).rejects.toSatisfy((error) => OutOfMemoryError.isInstance(error));
  expect([...(await small.read())]).toEqual([1, 2]);
  // What is no memory serves nobody else.
  expect(backend.memory().deviceBytes).toBe(deviceBytes);
});
