// The cuda backend: any bound graph on an NVIDIA GPU, training included. One device, one stream.

import {
  allocate,
  type Backend,
  BlockTensor,
  bytesOf,
  type CompileOptions,
  ConfigError,
  type ConstantsHost,
  checkConstants,
  checkData,
  checkState,
  type DeviceTensor,
  DisposedError,
  type Executable,
  evaluateNode,
  expandComposites,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  hoistConstants,
  type Node,
  SharedConstants,
  simplify,
  type TensorSpec,
  type TypedArray,
  toBfloat16Bits,
  toFloat16Bits,
} from "@sisa/core";
import { Device, openDriver } from "./device/device.ts";
import type { DeviceInfo } from "./device/driver.ts";
import { everyGpu } from "./device/kernels.ts";
import { host } from "./device/native.ts";
import { Block, type CudaTensor } from "./device-tensor.ts";
import { CudaExecutable, type ExecutableHost } from "./executable.ts";
import { fuse } from "./fusion/fuse.ts";
import { joinDecoding } from "./fusion/join-decoding.ts";
import { loweringOf } from "./lowerings/index.ts";
import { aliasOf, gatheringOf } from "./lowerings/movement.ts";
import { noOutcomes, Outcomes } from "./outcomes.ts";
import { bytesOfSpec, makePlan, type Plan, Storage } from "./plan.ts";

/** Which device. */
export interface CudaOptions {
  /** Which GPU, as CUDA numbers them; CUDA_VISIBLE_DEVICES is obeyed. Default 0. */
  readonly device?: number;
  /**
   * Wait after every kernel, so that the error of one that crashes names its operation. Slow. Default: true where the
   * environment says CUDA_LAUNCH_BLOCKING=1.
   */
  readonly blocking?: boolean;
  /**
   * Takes the kernels that every supported GPU runs, not those for one generation alone, with the shared memory that the
   * smallest of them has; to compare. Default false.
   */
  readonly portable?: boolean;
  /**
   * Gives the same bits in every run, in other processes too, with the same GPU, driver and cuBLASLt. Attention's backward pass
   * on Hopper then takes 1.2 to 1.3 times as long: gradients by queries get a pass of their own, and are not added up in memory
   * as they come. Products take the algorithm that cuBLASLt ranks first, and not the fastest of several. Default: true where
   * the environment says SISA_DETERMINISTIC=1.
   */
  readonly deterministic?: boolean;
}

/** A backend that says what it runs on. */
export interface CudaBackend extends Backend {
  /** The device, its driver and its cuBLASLt, in one line. */
  readonly description: string;
}

/**
 * A backend on one NVIDIA GPU of compute capability 8.0 or newer. Graphs must be bound: `graph.bind({ T: 128 })`.
 *
 * @throws BackendUnavailableError where the driver, cuBLASLt or the device is missing; the message says what to
 *   install; ConfigError for a device number that cannot be
 */
export async function cuda(options: CudaOptions = {}): Promise<CudaBackend> {
  const {
    device = 0,
    blocking = host.variable("CUDA_LAUNCH_BLOCKING") === "1",
    portable = false,
    deterministic = host.variable("SISA_DETERMINISTIC") === "1",
  } = options;
  if (!Number.isInteger(device) || device < 0) {
    throw new ConfigError(`cuda: device must be a whole number >= 0, got ${device}`);
  }
  return new Cuda(await Device.open(device, blocking), portable, deterministic);
}

/**
 * The GPUs that CUDA sees.
 * @throws BackendUnavailableError where there is no driver; the message says what to install
 */
export async function cudaDevices(): Promise<readonly DeviceInfo[]> {
  return (await openDriver()).devices();
}

class Cuda implements CudaBackend, ExecutableHost, ConstantsHost<Block> {
  readonly name = "cuda";
  readonly limits;
  readonly device: Device;
  readonly #portable: boolean;
  readonly #deterministic: boolean;
  readonly live = new Set<CudaTensor>();
  readonly #executables = new Set<CudaExecutable<GraphInputs, GraphOutputs>>();
  readonly #constants = new SharedConstants(this);
  /** Where kernels report the first bad value: number of the node, and the value. */
  readonly #fault: Storage;
  readonly outcomes = new Outcomes(() => this.#clearFault());
  #faultNumber = 0;
  #closed = false;

  constructor(device: Device, portable: boolean, deterministic: boolean) {
    this.device = device;
    this.#portable = portable;
    this.#deterministic = deterministic;
    this.limits = {
      symbolicDims: false,
      hostMemory: false,
      pagedCaches: true,
      chunkLength: 256,
      maximumTensorBytes: device.info.memoryBytes,
    };
    this.#fault = new Storage(8, "constant");
    this.#fault.address = device.memory.allocate(8);
    this.#clearFault();
  }

  get description(): string {
    return this.device.description;
  }

  async compile<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options: CompileOptions<I, O> = {},
  ): Promise<Executable<I, O>> {
    this.checkOpen();
    const symbols = [...graph.symbols];
    if (symbols.length > 0) {
      throw new GraphError(`cuda: needs a graph with bound sizes; bind ${symbols.join(", ")}`);
    }
    const givenState: { readonly [input: string]: string | undefined } = options.state ?? {};
    const givenConstants: { readonly [name: string]: TypedArray | undefined } = options.constants ?? {};
    const state = checkState(graph, givenState);
    const given = checkConstants(graph, givenConstants, givenState);
    const names = given.map(([name]) => name);
    const hoisted = hoistConstants(lower(graph, givenConstants), names, isAlias);
    const constants = await this.#constants.hold(hoisted, given);
    try {
      this.checkOpen();
      return this.#executable<I, O>(hoisted.main, state, constants);
    } catch (error) {
      for (const tensor of Object.values(constants)) tensor.dispose();
      throw error;
    }
  }

  async assemble(graph: Graph): Promise<Executable<GraphInputs, GraphOutputs>> {
    this.checkOpen();
    return this.#executable(graph, [], {});
  }

  /** @param constants inputs of the graph that the executable owns from now on */
  #executable<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph,
    state: readonly (readonly [input: string, output: string])[],
    constants: { readonly [name: string]: CudaTensor },
  ): CudaExecutable<I, O> {
    const { multiprocessors } = this.device.info;
    const { capability, sharedBytes } = this.#portable ? everyGpu : this.device.info;
    const plan = makePlan(
      graph,
      state,
      { ruleOf: (node) => loweringOf(node)?.lower, aliasOf, gatheringOf },
      {
        capability,
        multiprocessors,
        sharedBytes,
        clusters: (...launch) => this.device.clusters(...launch),
        deterministic: this.#deterministic,
        fault: this.#fault,
        nextFaultNumber: () => ++this.#faultNumber,
        prepare: (product) => this.device.cublasLt.prepare(product, !this.#deterministic),
      },
    );
    const held = this.#holdMemory(plan);
    const executable = new CudaExecutable<I, O>(this, {
      graph,
      plan,
      state,
      constants,
      held,
      closed: () => this.#executables.delete(executable),
    });
    this.#executables.add(executable);
    return executable;
  }

  /** Memory of the plan's temporaries and constants; addresses become those of the device. */
  #holdMemory(plan: Plan): number[] {
    const held: number[] = [];
    const take = (bytes: number) => {
      const address = this.device.memory.allocate(bytes);
      held.push(address);
      return address;
    };
    try {
      const arena = plan.arenaBytes > 0 ? take(plan.arenaBytes) : 0;
      for (const storage of plan.temporaries) storage.address += arena;
      const zeros = plan.zeroBytes > 0 ? take(plan.zeroBytes) : 0;
      this.#zero({ address: zeros, bytes: plan.zeroBytes });
      for (const storage of plan.zeros) storage.address += zeros;
      for (const { storage, node } of plan.constants) {
        storage.address = take(storage.bytes);
        this.device.write(storage.address, constantData(node));
      }
    } catch (error) {
      for (const address of held) this.device.memory.free(address);
      throw error;
    }
    return held;
  }

  tensor(spec: TensorSpec, data?: TypedArray): DeviceTensor {
    this.checkOpen();
    const tensor = new BlockTensor(this, spec, this.allocate(spec), true);
    try {
      if (data) this.write(tensor, data);
      else this.#zero(tensor.block);
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    return tensor;
  }

  #zero({ address, bytes }: Pick<Block, "address" | "bytes">): void {
    if (bytes > 0) this.device.driver.call("cuMemsetD8Async", address, 0, bytes, this.device.stream);
  }

  allocate(spec: TensorSpec): Block {
    return this.block(bytesOfSpec(spec));
  }

  block(bytes: number): Block {
    return new Block(this.device.memory.allocate(bytes), bytes, (address) => {
      if (!this.#closed) this.device.memory.free(address);
    });
  }

  copy(source: Block, target: Block): void {
    target.outcomes = source.outcomes;
    if (source.bytes === 0) return;
    this.device.driver.call("cuMemcpyDtoDAsync", target.address, source.address, source.bytes, this.device.stream);
  }

  write(tensor: DeviceTensor, data: TypedArray): void {
    this.checkOpen();
    const own = this.own(tensor);
    checkData(own.spec, data, bytesOfSpec(own.spec) / data.BYTES_PER_ELEMENT);
    const block = own.exclusive();
    const truth = own.spec.dtype === "bool" ? Uint8Array.from(data, (value) => (value ? 1 : 0)) : data;
    this.device.write(block.address, truth);
    block.outcomes = noOutcomes;
  }

  async read({ dtype }: TensorSpec, block: Block): Promise<TypedArray> {
    this.checkOpen();
    // Those of the contents as they are now: the block may be written again before they are here.
    const { outcomes } = block;
    const endRead = this.outcomes.beginRead();
    const [bytes, fault] = await this.device.read(block, this.#fault);
    const [number = 0, value = 0] = new Int32Array(fault.buffer);
    endRead([number, value]);
    for (const { error } of outcomes) if (error) throw error;
    const empty = allocate(dtype, 0);
    const result = empty.constructor as new (buffer: ArrayBufferLike, offset: number, length: number) => TypedArray;
    return new result(bytes.buffer, bytes.byteOffset, bytes.byteLength / empty.BYTES_PER_ELEMENT);
  }

  #clearFault(): void {
    this.device.driver.call("cuMemsetD8Async", this.#fault.address, 0, 8, this.device.stream);
  }

  own(tensor: DeviceTensor): CudaTensor {
    if (BlockTensor.isOf(tensor, this)) return tensor;
    throw new GraphError("cuda: the tensor belongs to another backend; make it with this backend's tensor()");
  }

  memory(): { readonly deviceBytes: number } {
    return { deviceBytes: this.#closed ? 0 : this.device.memory.bytes };
  }

  checkOpen(): void {
    if (this.#closed) throw new DisposedError("cuda: the backend is closed");
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    for (const executable of [...this.#executables]) executable.close();
    for (const tensor of [...this.live]) tensor.dispose();
    this.#closed = true;
    this.device.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const isAlias = (node: Node) => aliasOf(node) !== undefined;

/** The graph as it is planned: of operations that have a lowering, with constants folded, and several joined to one. */
export function lower(graph: Graph, constants: { readonly [name: string]: unknown } = {}): Graph {
  const expand = (wanted: Graph) => simplify(expandComposites(wanted, (_op, node) => loweringOf(node) === undefined));
  const expanded = expand(joinDecoding(simplify(graph)));
  // Where weights never change, putting them together costs nothing.
  return expand(Object.keys(constants).length > 0 ? fuse(expanded, { leastRows: 1 }) : fuse(expanded));
}

/** The elements of a constant as its dtype holds them. */
function constantData(node: Node): TypedArray {
  const [spec] = Object.values(node.outputs);
  const { value } = evaluateNode(node, {}, "rounded");
  if (!spec || !value) throw new GraphError("cuda: a constant has no value");
  const result = allocate(spec.dtype, bytesOfSpec(spec) / bytesOf(spec.dtype));
  const encode = spec.dtype === "bfloat16" ? toBfloat16Bits : spec.dtype === "float16" ? toFloat16Bits : undefined;
  result.set(encode ? Array.from(value.data, encode) : value.data);
  return result;
}
