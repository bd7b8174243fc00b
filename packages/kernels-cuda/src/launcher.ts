// Runs the steps of a plan: one by one, or as one CUDA graph that was captured from them.

import { DeviceError, SisaError } from "@sisa/core";
import type { Device } from "./device/device.ts";
import type { HostMemory } from "./device/native.ts";
import type { Step, View } from "./plan.ts";

/** Graphs that are kept, each for other addresses of inputs and outputs. */
const mostGraphs = 4;
/** Runs in a row that are timed. */
const profiledRuns = 20;
/** Of cuEventRecordWithFlags: what is recorded is read outside of the graph. */
const externalEvent = 1;

export class Launcher {
  readonly #device: Device;
  readonly #steps: readonly Step[];
  readonly #memory: HostMemory;
  readonly #view: DataView;
  /** Where each kernel's arguments begin, and the list of pointers to them: where code expects them, the driver knows. */
  readonly #places: readonly { readonly arguments: number; readonly list: number }[];
  readonly #graphs: { readonly addresses: readonly number[]; readonly handle: number }[] = [];
  /** Those whose arguments are written. */
  #last: readonly number[] | undefined;

  constructor(device: Device, steps: readonly Step[]) {
    this.#device = device;
    this.#steps = steps;
    let end = 0;
    this.#places = steps.map((step) => {
      const list = end;
      if (step.kind !== "kernel") return { list, arguments: end };
      const { bytes, places } = step.packed;
      const start = list + 8 * places.length;
      end = start + Math.ceil(bytes.length / 8) * 8;
      return { list, arguments: start };
    });
    this.#memory = device.driver.native.allocate(end);
    this.#view = new DataView(this.#memory.buffer);
    steps.forEach((step, index) => {
      this.#writeList(step, index);
    });
  }

  #writeList(step: Step, index: number): void {
    const place = this.#places[index];
    if (step.kind !== "kernel" || !place) return;
    const { address } = this.#memory;
    step.packed.places.forEach((at, argument) => {
      this.#view.setBigUint64(place.list + 8 * argument, BigInt(address + place.arguments + at), true);
    });
    new Uint8Array(this.#memory.buffer, place.arguments, step.packed.bytes.length).set(step.packed.bytes);
  }

  /**
   * Enqueues all steps. What runs twice in a row with the same addresses is captured, and launched as one from then on.
   * @param addresses those of inputs and outputs, always in one order
   */
  run(addresses: readonly number[]): void {
    const { driver, stream } = this.#device;
    const known = this.#graphs.find((graph) => isSame(graph.addresses, addresses));
    if (known !== undefined) {
      driver.call("cuGraphLaunch", known.handle, stream);
      return;
    }
    const isAgain = this.#last !== undefined && isSame(this.#last, addresses);
    if (!isAgain) this.#writeAddresses();
    this.#last = addresses;
    if (isAgain && this.#steps.length > 1 && !this.#device.blocking) {
      driver.call("cuGraphLaunch", this.#capture(addresses), stream);
    } else this.#enqueue();
  }

  #writeAddresses(): void {
    this.#steps.forEach((step, index) => {
      const place = this.#places[index];
      if (step.kind !== "kernel" || !place) return;
      for (const { at, argument } of step.packed.addresses) {
        const address = addressOf(argument as View);
        if (!("map" in argument)) this.#view.setBigUint64(place.arguments + at, BigInt(address), true);
        else {
          const map = this.#device.driver.tensorMap(address, argument.map);
          new Uint8Array(this.#memory.buffer, place.arguments + at, map.length).set(map);
        }
      }
    });
  }

  /** @param between called before each step, and after the last */
  #enqueue(between?: () => void): void {
    this.#steps.forEach((step, index) => {
      try {
        between?.();
        this.#launch(step, index, between === undefined && this.#steps[index - 1]?.kind === "kernel");
        if (this.#device.blocking) this.#device.driver.call("cuStreamSynchronize", this.#device.stream);
      } catch (error) {
        const message = SisaError.isInstance(error) ? error.message : String(error);
        throw message.startsWith(`${step.op}: `) ? error : new DeviceError(`${step.op}: ${message}`, { cause: error });
      }
    });
    between?.();
  }

  /** @param follows whether it stands right behind another kernel */
  #launch(step: Step, index: number, follows: boolean): void {
    const { driver, stream } = this.#device;
    switch (step.kind) {
      case "kernel": {
        const list = this.#memory.address + (this.#places[index]?.list ?? 0);
        const { kernel, grid, block, sharedBytes, mode } = step;
        const handle = this.#device.kernel(kernel, sharedBytes, mode === "overlapping");
        if (mode === "cooperative" || (mode === "overlapping" && follows && this.#device.overlaps)) {
          driver.launchAs(mode, handle, grid, block, sharedBytes, stream, list);
        } else {
          driver.call("cuLaunchKernel", handle, ...grid, block, 1, 1, sharedBytes, stream, list, 0);
        }
        break;
      }
      case "product":
        step.product.run(
          addressOf(step.a),
          addressOf(step.b),
          addressOf(step.c),
          addressOf(step.addend ?? step.c),
          stream,
        );
        break;
      case "zero":
        driver.call("cuMemsetD8Async", addressOf(step.target), 0, step.bytes, stream);
        break;
      case "copy":
        driver.call("cuMemcpyDtoDAsync", addressOf(step.target), addressOf(step.source), step.bytes, stream);
        break;
      default:
        step satisfies never;
    }
  }

  /**
   * Times of the steps with the addresses of the last run, from running them again.
   * @returns `milliseconds` of all steps as one graph, of which many run in a row; and of each step, by events between
   *   them, which cost time of their own and keep kernels from overlapping
   */
  async profile(): Promise<{ readonly milliseconds: number; readonly steps: readonly number[] }> {
    const { driver, stream } = this.#device;
    const events: number[] = [];
    const newEvent = () => {
      const event = driver.handle("cuEventCreate", 0);
      events.push(event);
      return event;
    };
    const run = async (graph: number) => {
      driver.call("cuGraphLaunch", graph, stream);
      await this.#device.finished();
      driver.call("cuGraphExecDestroy", graph);
    };
    const between = (first: number | undefined, last: number | undefined) => {
      const out = [0];
      driver.call("cuEventElapsedTime", out, first, last);
      return Number(out[0]);
    };
    const record = () => driver.call("cuEventRecordWithFlags", newEvent(), stream, externalEvent);
    await run(this.#instantiate(() => this.#enqueue(record)));
    const steps = events.slice(1).map((event, index) => between(events[index], event));
    const count = events.length;
    await run(
      this.#instantiate(() => {
        record();
        for (let repeat = 0; repeat < profiledRuns; repeat++) this.#enqueue();
        record();
      }),
    );
    const milliseconds = between(events[count], events[count + 1]) / profiledRuns;
    for (const event of events) driver.call("cuEventDestroy", event);
    return { milliseconds, steps };
  }

  /** What `work` enqueues, as one graph. */
  #instantiate(work: () => void): number {
    const { driver, stream } = this.#device;
    driver.call("cuStreamBeginCapture", stream, 1);
    let graph: number;
    try {
      work();
    } finally {
      graph = driver.endCapture(stream);
    }
    const executable = driver.handle("cuGraphInstantiate", graph, 0);
    driver.call("cuGraphDestroy", graph);
    return executable;
  }

  #capture(addresses: readonly number[]): number {
    const handle = this.#instantiate(() => this.#enqueue());
    if (this.#graphs.length >= mostGraphs) this.#forgetOldest();
    this.#graphs.push({ addresses, handle });
    return handle;
  }

  #forgetOldest(): void {
    const oldest = this.#graphs.shift();
    if (oldest) this.#device.driver.call("cuGraphExecDestroy", oldest.handle);
  }

  close(): void {
    while (this.#graphs.length > 0) this.#forgetOldest();
    this.#memory.free();
  }
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function addressOf({ storage, offset }: View): number {
  return storage.address + offset;
}
