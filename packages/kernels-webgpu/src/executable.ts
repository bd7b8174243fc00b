// A compiled graph: decides for each run which buffers it reads and writes, and submits it as one list of commands.

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
  type TensorSpec,
} from "@sisa/core";
import type { Block, TensorHost, WebgpuTensor } from "./device-tensor.ts";
import type { Pipelines } from "./pipelines.ts";
import { planBuffers } from "./plan.ts";
import type { Kernel, Program, Value } from "./program.ts";
import { RunStatus } from "./run-status.ts";

export interface ExecutableHost extends TensorHost {
  readonly device: GPUDevice;
  readonly pipelines: Pipelines;
  /** @throws GraphError for a tensor of another backend */
  own(tensor: DeviceTensor): WebgpuTensor;
  /** @throws DisposedError, DeviceLostError */
  checkOpen(): void;
  take(bytes: number, what: string): GPUBuffer;
  release(buffer: GPUBuffer): void;
}

export interface ExecutableParts {
  readonly graph: Graph;
  readonly program: Program;
  readonly pipelines: readonly GPUComputePipeline[];
  readonly state: readonly (readonly [input: string, output: string])[];
  /** Inputs whose values are given for good. */
  readonly constants: { readonly [name: string]: WebgpuTensor };
  readonly closed: () => void;
}

/** Bind groups that each kernel remembers: two for states that alternate, and as many for other callers' tensors. */
const rememberedGroups = 4;

interface Dispatch {
  readonly kernel: Kernel;
  readonly pipeline: GPUComputePipeline;
  readonly groups: { readonly buffers: readonly GPUBuffer[]; readonly group: GPUBindGroup }[];
}

interface Output {
  readonly name: string;
  readonly spec: TensorSpec;
  readonly value: Value;
  readonly overwrites: string | undefined;
  /** The input whose handle this output becomes the value of. */
  readonly state: string | undefined;
  block: Block | undefined;
  view: WebgpuTensor | undefined;
}

export class WebgpuExecutable<I extends GraphInputs, O extends GraphOutputs> implements Executable<I, O> {
  readonly #host: ExecutableHost;
  readonly #parts: ExecutableParts;
  readonly #dispatches: readonly Dispatch[];
  readonly #outputs: readonly Output[];
  /** Buffers by value: temporaries and constants for good, the others as of the present run. */
  readonly #buffers = new Map<Value, GPUBuffer>();
  readonly #owned: GPUBuffer[] = [];
  /** Blocks of outputs that got others in this run, which may still read them. */
  readonly #replaced: Block[] = [];
  #status: RunStatus | undefined;
  #statusUsers = new Set<Block>();
  #checkedSpecs: readonly TensorSpec[] = [];
  #closed = false;

  constructor(host: ExecutableHost, parts: ExecutableParts) {
    this.#host = host;
    this.#parts = parts;
    const { program, pipelines, state } = parts;
    this.#dispatches = program.kernels.map((kernel, index) => ({
      kernel,
      pipeline: pipelines[index] as GPUComputePipeline,
      groups: [],
    }));
    const states = new Map(state.map(([input, output]) => [output, input]));
    this.#outputs = [...program.outputs].map(([name, place]) => ({
      name,
      ...place,
      state: states.get(name),
      block: undefined,
      view: undefined,
    }));
    try {
      this.#allocate();
    } catch (error) {
      for (const buffer of this.#owned) host.release(buffer);
      throw error;
    }
  }

  /** Buffers for what lives as long as the executable. */
  #allocate(): void {
    const { kernels } = this.#parts.program;
    const plan = planBuffers(kernels);
    const shared = plan.buffers.map((bytes) => this.#own(bytes, "an intermediate result"));
    for (const [value, place] of plan.places) this.#buffers.set(value, shared[place] as GPUBuffer);
    for (const value of new Set(kernels.flatMap(({ bindings }) => bindings.map(({ value }) => value)))) {
      if (value.role.kind !== "constant") continue;
      const buffer = this.#own(value.bytes, "a constant");
      this.#host.device.queue.writeBuffer(buffer, 0, value.role.data);
      this.#buffers.set(value, buffer);
    }
  }

  #own(bytes: number, what: string): GPUBuffer {
    const buffer = this.#host.take(bytes, what);
    this.#owned.push(buffer);
    return buffer;
  }

  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor } {
    const host = this.#host;
    host.checkOpen();
    if (this.#closed) throw new DisposedError("webgpu: the executable is closed");
    const tensors = this.#checkInputs(inputs);
    const encoder = host.device.createCommandEncoder();
    const read = new Set<Block>();
    for (const [name, value] of this.#parts.program.inputs) {
      const tensor = tensors[name] as WebgpuTensor;
      read.add(tensor.block);
      this.#buffers.set(value, tensor.block.buffer);
    }
    const status = this.#nextStatus(read, encoder);
    const statuses = new Set([...read].flatMap((block) => [...block.statuses]));
    if (status) statuses.add(status);

    for (const output of this.#outputs) this.#expire(output);
    const written = this.#outputs.map((output) => {
      const state = output.state === undefined ? undefined : (tensors[output.state] as WebgpuTensor);
      const block = this.#blockFor(output, state, tensors, read, encoder);
      return { output, state, block };
    });
    for (const { block } of written) {
      block.statuses = statuses;
      if (status) this.#statusUsers.add(block);
    }
    this.#encode(encoder);
    host.device.queue.submit([encoder.finish()]);
    for (const block of this.#replaced.splice(0)) block.release();

    const results = written.map(({ output, state, block }) => {
      if (state) {
        state.advance(block);
        return [output.name, state] as const;
      }
      output.view = new BlockTensor(host, output.spec, block, false);
      return [output.name, output.view] as const;
    });
    return Object.fromEntries(results) as unknown as { readonly [N in keyof O]: DeviceTensor };
  }

  #checkInputs(inputs: { readonly [name: string]: DeviceTensor | undefined }): {
    readonly [name: string]: WebgpuTensor;
  } {
    const { graph, constants, state } = this.#parts;
    const own: Record<string, WebgpuTensor> = {};
    for (const [name, tensor] of Object.entries(inputs)) if (tensor) own[name] = this.#host.own(tensor);
    const tensors = checkInputs(graph, own, constants, state);
    const specs = Object.values(tensors).map(({ spec }) => spec);
    if (specs.some((spec, index) => spec !== this.#checkedSpecs[index])) {
      boundSymbols(graph, (name) => tensors[name]?.spec.shape);
      this.#checkedSpecs = specs;
    }
    for (const [input] of state) {
      if (tensors[input]?.owned === false) {
        throw new GraphError(
          `run: state "${input}" is an output of an executable; keep() it, or make it with tensor()`,
        );
      }
    }
    return tensors;
  }

  /**
   * The buffer for the checks of this run, cleared; that of the run before where this run works on its results, so that
   * what went wrong there is not forgotten.
   */
  #nextStatus(read: ReadonlySet<Block>, encoder: GPUCommandEncoder): RunStatus | undefined {
    const { checks } = this.#parts.program;
    if (checks.length === 0) return undefined;
    let status = this.#status;
    const isOf = (block: Block) => status !== undefined && block.statuses.has(status);
    if (status === undefined || ![...read].some(isOf)) {
      const ownBlocks = new Set(this.#outputs.flatMap(({ block }) => (block?.shared ? [] : (block ?? []))));
      const needed = [...this.#statusUsers].some((block) => isOf(block) && !block.freed && !ownBlocks.has(block));
      if (status === undefined || needed) {
        status = new RunStatus(this.#own(checks.length * 8, "the status of a run"), checks);
        this.#status = status;
      }
      this.#statusUsers = new Set();
      encoder.clearBuffer(status.buffer);
    }
    for (const { kernel } of this.#dispatches) {
      for (const { value } of kernel.bindings) {
        if (value.role.kind === "status") this.#buffers.set(value, status.buffer);
      }
    }
    return status;
  }

  /** Where an output goes: over its state where that is safe, else into the other buffer of the state, or into its own. */
  #blockFor(
    output: Output,
    state: WebgpuTensor | undefined,
    tensors: { readonly [name: string]: WebgpuTensor },
    read: ReadonlySet<Block>,
    encoder: GPUCommandEncoder,
  ): Block {
    if (state && output.overwrites !== undefined) {
      const present = state.block;
      const readers = Object.values(tensors).filter((tensor) => tensor.block === present).length;
      if (readers === 1 && !present.shared) return present;
      // Somebody else wants the old value: the run works on a copy.
      const copy = state.takeSpare();
      encoder.copyBufferToBuffer(present.buffer, 0, copy.buffer, 0, output.value.bytes);
      this.#buffers.set(output.value, copy.buffer);
      return copy;
    }
    const block = state ? state.takeSpare() : this.#outputBlock(output, read);
    this.#buffers.set(output.value, block.buffer);
    return block;
  }

  /** The block of the run before, unless somebody keeps its value or this very run reads it. */
  #outputBlock(output: Output, read: ReadonlySet<Block>): Block {
    const before = output.block;
    if (before && !before.shared && !read.has(before)) return before;
    output.block = this.#host.allocate(output.spec);
    if (before) this.#replaced.push(before);
    return output.block;
  }

  #encode(encoder: GPUCommandEncoder): void {
    const pass = encoder.beginComputePass();
    let current: GPUComputePipeline | undefined;
    for (const dispatch of this.#dispatches) {
      if (dispatch.pipeline !== current) {
        current = dispatch.pipeline;
        pass.setPipeline(current);
      }
      pass.setBindGroup(0, this.#groupFor(dispatch));
      pass.dispatchWorkgroups(...dispatch.kernel.workgroups);
    }
    pass.end();
  }

  #groupFor({ kernel, groups }: Dispatch): GPUBindGroup {
    const { bindings, label } = kernel;
    const found = groups.find(({ buffers }) =>
      bindings.every(({ value }, index) => this.#buffers.get(value) === buffers[index]),
    );
    if (found) return found.group;
    const buffers = bindings.map(({ value }) => {
      const buffer = this.#buffers.get(value);
      if (buffer === undefined) throw new GraphError(`${label}: a ${value.role.kind} has no buffer`);
      return buffer;
    });
    const group = this.#host.device.createBindGroup({
      label,
      layout: this.#host.pipelines.layout(bindings),
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
    groups.push({ buffers, group });
    if (groups.length > rememberedGroups) groups.shift();
    return group;
  }

  #expire(output: Output): void {
    output.view?.expire();
    output.view = undefined;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const output of this.#outputs) {
      this.#expire(output);
      output.block?.release();
      output.block = undefined;
    }
    for (const tensor of Object.values(this.#parts.constants)) tensor.dispose();
    // A status that a kept result still needs stays until then; it is a few bytes, and goes with the backend.
    for (const buffer of this.#owned) if (!this.#isNeeded(buffer)) this.#host.release(buffer);
    this.#parts.closed();
  }

  #isNeeded(buffer: GPUBuffer): boolean {
    return [...this.#host.live].some((tensor) => [...tensor.block.statuses].some((status) => status.buffer === buffer));
  }
}
