// The webgpu backend: any graph on the GPU, training included. One queue; what is enqueued runs in order.

import {
  type Backend,
  BlockTensor,
  type CompileOptions,
  type ConstantsHost,
  checkConstants,
  checkData,
  checkState,
  DeviceError,
  type DeviceTensor,
  DisposedError,
  type Executable,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  SharedConstants,
  specText,
  type TensorSpec,
  type TypedArray,
} from "@sisa/core";
import { BufferPool } from "./buffers.ts";
import {
  type Capabilities,
  type DeviceOptions,
  mapRead,
  messageOf,
  type OpenDevice,
  openDevice,
  usage,
} from "./device.ts";
import { Block, type WebgpuTensor } from "./device-tensor.ts";
import { countOf, fromDevice, storageBytes, storageType, toDevice } from "./element-type.ts";
import { OutOfMemoryError } from "./errors.ts";
import { type ExecutableHost, WebgpuExecutable } from "./executable.ts";
import { hoist, type Lowerings, lower } from "./lower.ts";
import { Pipelines } from "./pipelines.ts";
import type { Tuner, TuningCache } from "./tuner.ts";

/** Which device, and rules for other people's operations. */
export interface WebgpuOptions extends DeviceOptions {
  /** How to compute operations of third parties, by name; composites need none. Default none. */
  readonly lowerings?: Lowerings;
  /**
   * Where it is kept which kernel is the fastest for matrix products of each shape: they are timed when a graph that has
   * them is compiled for the first time. Kernels differ in the order of their additions. Default: nothing is timed, the
   * shape decides.
   */
  readonly autotune?: TuningCache;
}

/** The backend, and what it runs on. */
export interface WebgpuBackend extends Backend {
  /** Name of the GPU, as its driver gives it. */
  readonly description: string;
  /** Features in use, of those that kernels have variants for. */
  readonly features: ReadonlySet<string>;
}

/**
 * A backend on WebGPU: the browser's own, or Dawn (package `webgpu`) in Node. float32, and float16 where the device has
 * it. Graphs must be bound: `graph.bind({ T: 128 })`.
 *
 * @throws BackendUnavailableError where there is no WebGPU or no GPU; the message says what to install
 */
export async function webgpu(options: WebgpuOptions = {}): Promise<WebgpuBackend> {
  const open = await openDevice(options);
  const { autotune, lowerings } = options;
  return new Webgpu(open, lowerings, autotune && new (await import("./tuner.ts")).Tuner(open, autotune));
}

const keptStaging = 4;

class Webgpu implements WebgpuBackend, ExecutableHost, ConstantsHost<Block> {
  readonly name = "webgpu";
  readonly limits: Backend["limits"];
  readonly pipelines: Pipelines;
  readonly live = new Set<WebgpuTensor>();
  readonly #open: OpenDevice;
  readonly #pool: BufferPool;
  readonly #lowerings: Lowerings | undefined;
  readonly #tuner: Tuner | undefined;
  readonly #executables = new Set<{ close(): void }>();
  readonly #constants = new SharedConstants(this);
  /** Buffers of earlier reads, kept for the next of the same size. */
  readonly #staging: GPUBuffer[] = [];
  /** Settled once the device has answered for every buffer made so far. */
  #allocated: Promise<void> = Promise.resolve();
  #failure: DeviceError | undefined;
  #closed = false;

  constructor(open: OpenDevice, lowerings: Lowerings | undefined, tuner: Tuner | undefined) {
    this.#open = open;
    this.#lowerings = lowerings;
    this.#tuner = tuner;
    const { maxBufferSize, maxStorageBufferBindingSize } = open.limits;
    const maximumTensorBytes = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    this.limits = { symbolicDims: false, hostMemory: false, pagedCaches: false, chunkLength: 64, maximumTensorBytes };
    this.pipelines = new Pipelines(open.device);
    this.#pool = new BufferPool(open.device, maximumTensorBytes);
    open.device.onuncapturederror = ({ error }) => this.#fail(new DeviceError(`webgpu: ${error.message}`));
  }

  get device(): GPUDevice {
    return this.#open.device;
  }

  get description(): string {
    return this.#open.description;
  }

  get features(): ReadonlySet<string> {
    return this.#open.features;
  }

  async compile<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options: CompileOptions<I, O> = {},
  ): Promise<Executable<I, O>> {
    this.checkOpen();
    const [symbol] = graph.symbols;
    if (symbol !== undefined) {
      throw new GraphError(`webgpu: sizes must be known, got ${symbol}; call graph.bind({ ${symbol}: ... }) first`);
    }
    const plain = graph as unknown as Graph;
    const state = checkState(plain, options.state ?? {});
    const given = checkConstants(plain, options.constants ?? {}, options.state ?? {});
    const names = given.map(([name]) => name);
    const hoisted = hoist(plain, names, { device: this.#open, lowerings: this.#lowerings });
    const constants = await this.#constants.hold(hoisted, given);
    try {
      return await this.#executable<I, O>(hoisted.main, state, constants);
    } catch (error) {
      for (const tensor of Object.values(constants)) tensor.dispose();
      throw error;
    }
  }

  assemble(graph: Graph): Promise<Executable<GraphInputs, GraphOutputs>> {
    return this.#executable(graph, [], {});
  }

  /** @param constants inputs of the graph that the executable owns from now on */
  async #executable<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph,
    state: readonly (readonly [input: string, output: string])[],
    constants: { readonly [name: string]: WebgpuTensor },
  ): Promise<WebgpuExecutable<I, O>> {
    const lowered = (device: Capabilities) => lower(graph, { device, state, lowerings: this.#lowerings });
    const program = this.#tuner ? await this.#tuner.tuned(lowered, this) : lowered(this.#open);
    const pipelines = await Promise.all(program.kernels.map((kernel) => this.pipelines.get(kernel)));
    this.checkOpen();
    const executable: WebgpuExecutable<I, O> = new WebgpuExecutable<I, O>(this, {
      graph,
      program,
      pipelines,
      state,
      constants,
      closed: () => this.#executables.delete(executable),
    });
    this.#executables.add(executable);
    return executable;
  }

  tensor(spec: TensorSpec, data?: TypedArray): DeviceTensor {
    this.checkOpen();
    if (data) checkData(spec, data, countOf(spec));
    const block = this.allocate(spec);
    if (data) this.device.queue.writeBuffer(block.buffer, 0, toDevice(spec, data));
    else {
      const encoder = this.device.createCommandEncoder();
      encoder.clearBuffer(block.buffer);
      this.device.queue.submit([encoder.finish()]);
    }
    return new BlockTensor(this, spec, block, true);
  }

  allocate(spec: TensorSpec): Block {
    const text = specText(spec);
    const type = storageType(spec.dtype, this.#open.features.has("shader-f16"), text);
    return new Block(this.take(countOf(spec) * storageBytes(type), text), (buffer) => this.release(buffer));
  }

  take(bytes: number, what: string): GPUBuffer {
    this.device.pushErrorScope("out-of-memory");
    let buffer: GPUBuffer | undefined;
    try {
      buffer = this.#pool.take(bytes, what);
      return buffer;
    } finally {
      const checked = this.device.popErrorScope().then(
        (error) => {
          if (!error) return;
          // It is no memory, and must not serve anybody else.
          if (buffer && !this.#closed) this.#pool.drop(buffer);
          this.#fail(new OutOfMemoryError(`webgpu: no memory for ${what}: ${error.message}`));
        },
        () => undefined,
      );
      this.#allocated = this.#allocated.then(() => checked);
    }
  }

  release(buffer: GPUBuffer): void {
    if (!this.#closed) this.#pool.release(buffer);
  }

  write(tensor: DeviceTensor, data: TypedArray): void {
    this.checkOpen();
    const own = this.own(tensor);
    checkData(own.spec, data, countOf(own.spec));
    const block = own.exclusive();
    block.statuses = new Set();
    this.device.queue.writeBuffer(block.buffer, 0, toDevice(own.spec, data));
  }

  own(tensor: DeviceTensor): WebgpuTensor {
    if (BlockTensor.isOf(tensor, this)) return tensor;
    throw new GraphError("webgpu: the tensor belongs to another backend; make it with this backend's tensor()");
  }

  async read(spec: TensorSpec, block: Block): Promise<TypedArray> {
    this.checkOpen();
    const type = storageType(spec.dtype, true, "read");
    const bytes = Math.ceil((countOf(spec) * storageBytes(type)) / 4) * 4;
    const statuses = [...block.statuses];
    const size = statuses.reduce((total, status) => total + status.bytes, bytes);
    const staging = this.#takeStaging(Math.max(size, 4));
    const encoder = this.device.createCommandEncoder();
    if (bytes > 0) encoder.copyBufferToBuffer(block.buffer, 0, staging, 0, bytes);
    let offset = bytes;
    for (const status of statuses) {
      encoder.copyBufferToBuffer(status.buffer, 0, staging, offset, status.bytes);
      offset += status.bytes;
    }
    this.device.queue.submit([encoder.finish()]);
    const allocated = this.#allocated;
    let isMapped = false;
    try {
      await staging.mapAsync(mapRead);
      isMapped = true;
      await allocated;
      this.checkOpen();
      const failure = this.#takeFailure();
      if (failure) throw failure;
      const content = staging.getMappedRange();
      let place = bytes;
      for (const status of statuses) {
        status.inspect(new Int32Array(content, place, status.bytes / 4));
        place += status.bytes;
      }
      return fromDevice(spec, content);
    } catch (error) {
      if (isMapped) throw error;
      this.checkOpen();
      throw this.#takeFailure() ?? new DeviceError(`webgpu: ${messageOf(error)}`, { cause: error });
    } finally {
      staging.unmap();
      if (!isMapped || this.#closed || this.#staging.length >= keptStaging) staging.destroy();
      else this.#staging.push(staging);
    }
  }

  /** A buffer that can be read here; that of an earlier read where one has the size. */
  #takeStaging(size: number): GPUBuffer {
    const index = this.#staging.findIndex((buffer) => buffer.size === size);
    const [kept] = index < 0 ? [] : this.#staging.splice(index, 1);
    return kept ?? this.device.createBuffer({ size, usage: usage.mapRead | usage.copyTarget });
  }

  #fail(error: DeviceError): void {
    this.#failure ??= error;
  }

  #takeFailure(): DeviceError | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }

  memory(): { readonly deviceBytes: number } {
    return { deviceBytes: this.#closed ? 0 : this.#pool.deviceBytes };
  }

  checkOpen(): void {
    if (this.#closed) throw new DisposedError("webgpu: the backend is closed");
    const lost = this.#open.lost();
    if (lost) throw lost;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    for (const executable of this.#executables) executable.close();
    for (const tensor of [...this.live]) tensor.dispose();
    this.#closed = true;
    for (const buffer of this.#staging.splice(0)) buffer.destroy();
    this.#pool.close();
    this.#open.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
