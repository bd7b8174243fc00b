// Chooses among kernels that compute the same by timing them, once for each class of products on each GPU. Loaded by backends
// that are asked for it.

import { shader } from "./codegen/shader.ts";
import type { Capabilities, OpenDevice, Ways } from "./device.ts";
import type { ExecutableHost } from "./executable.ts";
import type { KernelContext } from "./lowering.ts";
import type { Kernel, Program, Value } from "./program.ts";

/**
 * Keeps names of kernels by names of products and GPUs: a `Map`, a file, `localStorage`. What names no kernel is replaced.
 */
export interface TuningCache {
  /** The kernel that was kept under a name. */
  get(name: string): string | null | undefined | Promise<string | null | undefined>;
  /** Keeps a kernel's name; a promise is waited for. */
  set(name: string, kernel: string): unknown;
}

/** Each is timed so many times, all in turns: the clock of a GPU rises while it works. The least time counts. */
const rounds = 4;
/** Milliseconds that a timing should take, so that starting it is little of it, and how often a kernel runs for that. */
const least = 4;
const mostRepeats = 64;

export class Tuner {
  readonly #open: OpenDevice;
  readonly #cache: TuningCache;
  readonly #chosen = new Map<string, string>();
  /** Settled when nothing is being timed: one thing at a time. */
  #idle: Promise<unknown> = Promise.resolve();

  constructor(open: OpenDevice, cache: TuningCache) {
    this.#open = open;
    this.#cache = cache;
  }

  /** Lowers a graph with the fastest kernels; where some are not known yet, again after they were timed. */
  async tuned(lower: (device: Capabilities) => Program, host: ExecutableHost): Promise<Program> {
    const unknown = new Map<string, ReadonlyMap<string, readonly Kernel[]>>();
    const fastest = (context: KernelContext, what: string, ways: Ways) => {
      const chosen = this.#chosen.get(what);
      if (chosen === undefined && !unknown.has(what)) unknown.set(what, kernelsOf(context, ways));
      return ways.get(chosen ?? "");
    };
    const device = { ...this.#open, fastest };
    const program = lower(device);
    if (unknown.size === 0) return program;
    const done = this.#idle.then(async () => {
      for (const [what, candidates] of unknown) this.#chosen.set(what, await this.#choose(what, candidates, host));
    });
    this.#idle = done.catch(() => undefined);
    await done;
    return lower(device);
  }

  async #choose(
    what: string,
    candidates: ReadonlyMap<string, readonly Kernel[]>,
    host: ExecutableHost,
  ): Promise<string> {
    const known = this.#chosen.get(what);
    if (known !== undefined) return known;
    const { description, features } = this.#open;
    const name = [description, ...[...features].sort(), what].join(", ");
    const kept = await this.#cache.get(name);
    if (kept && candidates.has(kept)) return kept;
    const fastest = await fastestOf(candidates, host);
    await this.#cache.set(name, fastest);
    return fastest;
  }
}

function kernelsOf(context: KernelContext, ways: Ways): ReadonlyMap<string, readonly Kernel[]> {
  return new Map(
    [...ways].map(([name, dispatch]) => {
      const kernels: Kernel[] = [];
      dispatch({ ...context, dispatch: (parts) => kernels.push(shader(parts)) });
      return [name, kernels];
    }),
  );
}

/** Numbers of either width that are neither zero nor large: with zeros a GPU takes less power, and so less time. */
function fill({ queue }: GPUDevice, buffer: GPUBuffer): void {
  const halves = Uint32Array.from({ length: Math.min(2 ** 18, buffer.size / 4) }, () => {
    return ((Math.random() * 2 ** 32) & 0x83ff83ff) | 0x38003800;
  });
  for (let at = 0; at < buffer.size; at += halves.byteLength) {
    queue.writeBuffer(buffer, at, halves, 0, Math.min(halves.length, (buffer.size - at) / 4));
  }
}

async function fastestOf(candidates: ReadonlyMap<string, readonly Kernel[]>, host: ExecutableHost): Promise<string> {
  const { device, pipelines } = host;
  const buffers = new Map<Value, GPUBuffer>();
  const prepare = async (kernel: Kernel) => {
    const pipeline = await pipelines.get(kernel);
    const entries = kernel.bindings.map(({ value }, binding) => {
      const buffer = buffers.get(value) ?? host.take(value.bytes, "a kernel that is timed");
      if (!buffers.has(value)) fill(device, buffer);
      buffers.set(value, buffer);
      return { binding, resource: { buffer } };
    });
    const group = device.createBindGroup({ layout: pipelines.layout(kernel.bindings), entries });
    return { pipeline, group, workgroups: kernel.workgroups };
  };
  try {
    const programs = await Promise.all([...candidates.values()].map((kernels) => Promise.all(kernels.map(prepare))));
    const time = async (program: (typeof programs)[number], repeats: number) => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (let repeat = 0; repeat < repeats; repeat++) {
        for (const { pipeline, group, workgroups } of program) {
          pass.setPipeline(pipeline);
          pass.setBindGroup(0, group);
          pass.dispatchWorkgroups(...workgroups);
        }
      }
      pass.end();
      const start = performance.now();
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      return (performance.now() - start) / repeats;
    };
    const timeAll = async (repeats: number) => {
      const times: number[] = [];
      for (const program of programs) times.push(await time(program, repeats));
      return times;
    };
    const once = Math.min(...(await timeAll(1)));
    const repeats = Math.max(1, Math.min(mostRepeats, Math.ceil(least / once)));
    let best = programs.map(() => Number.POSITIVE_INFINITY);
    for (let round = 0; round < rounds; round++) {
      const times = await timeAll(repeats);
      best = best.map((milliseconds, index) => Math.min(milliseconds, times[index] ?? milliseconds));
    }
    return [...candidates.keys()][best.indexOf(Math.min(...best))] as string;
  } finally {
    for (const buffer of buffers.values()) host.release(buffer);
  }
}
