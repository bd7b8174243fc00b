// What a training step asks of an NVIDIA GPU, on a driver that only takes notes: nothing is read back inside it, and each
// micro-batch and the update are one launch. Needs no GPU.
import { cuda } from "@sisa/kernels-cuda";
import { afterEach, expect, test, vi } from "vitest";
import { Device } from "../../kernels-cuda/src/device/device.ts";
import { DeviceMemory } from "../../kernels-cuda/src/device/memory.ts";
import { tinyModel, tinyTrainer } from "../test/tiny.ts";

afterEach(() => vi.restoreAllMocks());

/** A device whose memory holds nothing, with the names of all calls. */
function recordingDevice() {
  const calls: string[] = [];
  let address = 0x1000;
  const next = () => {
    address += 2 ** 20;
    return address;
  };
  const driver = {
    native: { allocate: (bytes: number) => ({ address: next(), buffer: new ArrayBuffer(bytes), free() {} }) },
    call: (name: string) => calls.push(name),
    handle: (name: string) => {
      calls.push(name);
      return next();
    },
    endCapture: next,
    launchAs: () => calls.push("cuLaunchKernelEx"),
    tensorMap: () => new Uint8Array(128),
  };
  const device = {
    driver,
    stream: 1,
    blocking: false,
    overlaps: true,
    description: "a driver that takes notes",
    info: { capability: 90, multiprocessors: 132, sharedBytes: 232_448, memoryBytes: 2 ** 36 },
    memory: new DeviceMemory(driver as never),
    cublasLt: { prepare: () => ({ run: () => calls.push("cublasLtMatmul") }) },
    kernel: next,
    write: () => calls.push("cuMemcpyHtoDAsync"),
    read: async (...places: readonly { readonly bytes: number }[]) => {
      calls.push("read");
      return places.map(({ bytes }) => {
        // No fault, and ones: among them that the step was taken.
        const isFault = bytes === 8;
        return new Uint8Array(new Float32Array(bytes / 4).fill(isFault ? 0 : 1).buffer);
      });
    },
    finished: async () => calls.push("wait"),
    close() {},
  };
  return { calls, device: device as unknown as Device };
}

/** Calls that enqueue, or that need no device. */
const enqueuing = [
  ...["cuMemcpyHtoDAsync", "cuMemcpyDtoDAsync", "cuMemsetD8Async", "cuMemAlloc"],
  ...["cuLaunchKernel", "cuLaunchKernelEx", "cublasLtMatmul", "cuGraphLaunch"],
  ...["cuStreamBeginCapture", "cuGraphInstantiate", "cuGraphDestroy", "cuGraphExecDestroy"],
];

test.each(["float32", "bfloat16"])(
  "steps in %s read nothing back, and launch one graph for each program",
  async (precision) => {
    const { calls, device } = recordingDevice();
    vi.spyOn(Device, "open").mockResolvedValue(device);
    await using backend = await cuda();
    const change = { precision, steps: 20, gradientAccumulation: 2, microBatchSize: 2, sequenceLength: 16 };
    const batch = { ids: new Int32Array(32), targets: new Int32Array(32) };
    const batches = async (_step: number, micro: number) => {
      if (micro === 0) calls.push("step");
      return batch;
    };
    await using trainer = await tinyTrainer(backend, change, { model: tinyModel({ width: 64 }), batches });
    calls.splice(0);
    const steps = 8;
    const { records } = await trainer.advance(steps);
    expect(records).toHaveLength(steps);

    const enqueued = calls.splice(0, calls.indexOf("read"));
    expect(calls).toEqual(new Array(steps).fill("read"));
    expect(enqueued.filter((call) => call !== "step" && !enqueuing.includes(call))).toEqual([]);
    expect(enqueued.filter((call) => call === "step")).toHaveLength(steps);

    // Two micro-batches and the update, once all is captured. The report of the step before moves out of its way.
    const last = enqueued.slice(enqueued.lastIndexOf("step") + 1).filter((call) => call !== "cuMemAlloc");
    const write = "cuMemcpyHtoDAsync";
    const micro = [write, write, write, "cuGraphLaunch"];
    expect(last).toEqual([...micro, ...micro, write, "cuMemcpyDtoDAsync", "cuGraphLaunch"]);
  },
);
