// A compiled graph: decides for each run which memory it reads and writes, and enqueues it.

import {
  BlockTensor,
  boundSymbols,
  checkInputs,
  type DeviceTensor,
  DisposedError,
  type Executable,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
} from "@sisa/core";
import type { Device } from "./device/device.ts";
import type { Block, CudaTensor, TensorHost } from "./device-tensor.ts";
import { Launcher } from "./launcher.ts";
import type { Plan, Step } from "./plan.ts";

export interface ExecutableHost extends TensorHost {
  readonly device: Device;
  /** @throws GraphError for a tensor of another backend */
  own(tensor: DeviceTensor): CudaTensor;
  checkOpen(): void;
}

export interface ExecutableParts {
  readonly graph: Graph;
  readonly plan: Plan;
  readonly state: readonly (readonly [input: string, output: string])[];
  readonly constants: { readonly [name: string]: CudaTensor };
  /** Addresses of the plan's own memory. */
  readonly held: readonly number[];
  readonly closed: () => void;
}

interface Output {
  block: Block;
  view: CudaTensor | undefined;
}

export class CudaExecutable<I extends GraphInputs, O extends GraphOutputs> implements Executable<I, O> {
  readonly #host: ExecutableHost;
  readonly #parts: ExecutableParts;
  readonly #launcher: Launcher;
  readonly #outputs = new Map<string, Output>();
  /** What the last run wrote: where a fault of this executable shows. */
  #written: readonly Block[] = [];
  #closed = false;

  constructor(host: ExecutableHost, parts: ExecutableParts) {
    this.#host = host;
    this.#parts = parts;
    this.#launcher = new Launcher(host.device, parts.plan.steps);
  }

  get written(): readonly Block[] {
    return this.#written;
  }

  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor } {
    const host = this.#host;
    host.checkOpen();
    if (this.#closed) throw new DisposedError("cuda: the executable is closed");
    const { graph, plan, state, constants } = this.#parts;
    const given = checkInputs<DeviceTensor>(graph, inputs, constants, state);
    const tensors = Object.entries(given).map(([name, tensor]) => [name, host.own(tensor)] as const);
    boundSymbols(graph, (name) => given[name]?.spec.shape);
    const tensorOf = new Map(tensors);
    for (const [input] of state) {
      const tensor = tensorOf.get(input);
      if (tensor?.owned === false) {
        throw new GraphError(
          `run: state "${input}" is an output of an executable; keep() it, or make it with tensor()`,
        );
      }
    }
    const stateInputs = new Set(state.map(([input]) => input));
    const stateBlocks = new Set([...stateInputs].map((name) => tensorOf.get(name)?.exclusive(host.copy.bind(host))));
    const copies: Block[] = [];
    const addresses: number[] = [];
    let failure = undefined as Block["error"];
    for (const [name, tensor] of tensors) {
      let { block } = tensor;
      failure ??= block.error;
      // What is overwritten as state must not be read as something else.
      if (!stateInputs.has(name) && stateBlocks.has(block)) {
        const copy = host.allocate(tensor.spec);
        host.copy(block, copy);
        copies.push(copy);
        block = copy;
      }
      const storage = plan.inputs[name];
      if (storage) storage.address = block.address;
      addresses.push(block.address);
    }
    const written: Block[] = [...stateBlocks].flatMap((block) => block ?? []);
    const results = new Map<string, DeviceTensor>();
    for (const [name, spec] of Object.entries(graph.outputs)) {
      const storage = plan.outputs[name];
      if (storage === undefined) continue;
      const output = this.#nextOutput(name, spec);
      storage.address = output.block.address;
      addresses.push(output.block.address);
      written.push(output.block);
      output.view = new BlockTensor(host, spec, output.block, false);
      results.set(name, output.view);
    }
    for (const [input, output] of state) {
      const tensor = tensorOf.get(input);
      if (tensor) results.set(output, tensor);
    }
    this.#launcher.run(addresses.join());
    for (const block of written) block.error = failure;
    this.#written = written;
    for (const copy of copies) copy.release();
    const ordered = Object.keys(graph.outputs).map((name) => [name, results.get(name)] as const);
    return Object.fromEntries(ordered) as unknown as { readonly [N in keyof O]: DeviceTensor };
  }

  /** The steps of the last run with their times in milliseconds, one after another, from running them once more. */
  async profile(): Promise<readonly { readonly step: Step; readonly milliseconds: number }[]> {
    const times = await this.#launcher.profile();
    return this.#parts.plan.steps.map((step, index) => ({ step, milliseconds: times[index] ?? 0 }));
  }

  /** The block of an output for the coming run: the last one, unless somebody keeps its value. */
  #nextOutput(name: string, spec: DeviceTensor["spec"]): Output {
    const output = this.#outputs.get(name);
    output?.view?.expire();
    if (output && !output.block.shared) return output;
    output?.block.release();
    const next: Output = { block: this.#host.allocate(spec), view: undefined };
    this.#outputs.set(name, next);
    return next;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { block, view } of this.#outputs.values()) {
      view?.expire();
      block.release();
    }
    this.#outputs.clear();
    this.#written = [];
    const { device } = this.#host;
    // The steps of the last run may still be at work on this memory.
    device.driver.call("cuStreamSynchronize", device.stream);
    this.#launcher.close();
    for (const tensor of Object.values(this.#parts.constants)) tensor.dispose();
    for (const address of this.#parts.held) device.memory.free(address);
    this.#parts.closed();
  }
}
