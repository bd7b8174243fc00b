// The onnxruntime backend: any graph on the CPU, training included. One queue; what is enqueued runs in order.

import {
  type Backend,
  BlockTensor,
  type CompileOptions,
  ConfigError,
  checkData,
  type DeviceTensor,
  DisposedError,
  type Executable,
  elementsOf,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  sizeOf,
  type TensorSpec,
  type TypedArray,
} from "@sisa/core";
import { Block, type OnnxTensor } from "./device-tensor.ts";
import { type ExecutableHost, inputName, OnnxExecutable, outputName } from "./executable.ts";
import { type Lowerings, lower } from "./lower.ts";
import { Queue } from "./queue.ts";
import { Runtime } from "./runtime.ts";

/** Threads, and rules for other people's operations. */
export interface OnnxruntimeOptions {
  /**
   * Threads within one operation. Default: one per core that the process may use; in browsers half the cores, at most
   * 4, and more than one only on pages that are isolated (headers COOP and COEP).
   */
  readonly threads?: number;
  /** How to spell operations of third parties, by name; composites need none. Default none. */
  readonly lowerings?: Lowerings;
}

/**
 * A backend on ONNX Runtime: onnxruntime-node in Node, onnxruntime-web in browsers. float32 and any sizes, bound or
 * not: one executable serves all lengths.
 *
 * @throws BackendUnavailableError where the package is not installed; the message has the line that installs it;
 *   ConfigError for a number of threads that cannot be
 */
export async function onnxruntime(options: OnnxruntimeOptions = {}): Promise<Backend> {
  const { threads } = options;
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new ConfigError(`onnxruntime: threads must be a whole number >= 1, got ${threads}`);
  }
  return new OnnxruntimeBackend(await Runtime.load({ threads }), options.lowerings);
}

class OnnxruntimeBackend implements Backend, ExecutableHost {
  readonly name = "onnxruntime";
  readonly limits = {
    symbolicDims: true,
    hostMemory: true,
    pagedCaches: false,
    chunkLength: 64,
    maximumTensorBytes: 2 ** 32,
  };
  readonly #runtime: Runtime;
  readonly #lowerings: Lowerings | undefined;
  readonly live = new Set<OnnxTensor>();
  readonly #queue = new Queue();
  readonly #executables = new Set<OnnxExecutable<GraphInputs, GraphOutputs>>();
  #deviceBytes = 0;
  #closed = false;

  constructor(runtime: Runtime, lowerings: Lowerings | undefined) {
    this.#runtime = runtime;
    this.#lowerings = lowerings;
  }

  async compile<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options: CompileOptions<I, O> = {},
  ): Promise<Executable<I, O>> {
    this.checkOpen();
    const constants: { readonly [name: string]: TypedArray | undefined } = options.constants ?? {};
    const state: { readonly [name: string]: string | undefined } = options.state ?? {};
    const given = this.#checkConstants(graph, constants);
    const lowered = lower(graph, {
      dialect: "onnxruntime",
      lowerings: this.#lowerings,
      constants,
      nameOfInput: inputName,
      nameOfOutput: outputName,
    });
    const bytes = lowered.builder.constantBytes;
    const session = await this.#runtime.session(lowered.builder);
    this.#deviceBytes += bytes;
    const executable = new OnnxExecutable<I, O>(this, {
      graph,
      session,
      state,
      constants: given,
      inPlace: this.#runtime.writesInPlace ? lowered.inPlace : new Map(),
      closed: () => {
        this.#deviceBytes -= bytes;
        this.#executables.delete(executable);
      },
    });
    this.#executables.add(executable);
    return executable;
  }

  /** @throws GraphError for constants that no input takes, or of the wrong type or size */
  #checkConstants(graph: Graph, constants: { readonly [name: string]: TypedArray | undefined }): ReadonlySet<string> {
    const given = new Set<string>();
    for (const [name, data] of Object.entries(constants)) {
      if (data === undefined) continue;
      const spec = graph.inputs[name];
      if (spec === undefined) throw new GraphError(`compile: constant "${name}" is no input of the graph`);
      checkData(spec, data, sizeOf(elementsOf(spec.shape)));
      given.add(name);
    }
    return given;
  }

  tensor(spec: TensorSpec, data?: TypedArray): DeviceTensor {
    this.checkOpen();
    const tensor = new BlockTensor(this, spec, this.allocate(spec), true);
    if (data) this.write(tensor, data);
    return tensor;
  }

  allocate(spec: TensorSpec): Block {
    const block = new Block(spec, (bytes) => {
      this.#deviceBytes -= bytes;
    });
    this.#deviceBytes += block.data.byteLength;
    return block;
  }

  write(tensor: DeviceTensor, data: TypedArray): void {
    this.checkOpen();
    const own = this.own(tensor);
    checkData(own.spec, data, own.block.data.length);
    const block = own.exclusive();
    if (this.#queue.idle) {
      block.data.set(data);
      block.error = undefined;
      return;
    }
    // The caller may change its array once this returns.
    const copy = data.slice();
    this.enqueue(async () => {
      block.data.set(copy);
      block.error = undefined;
    });
  }

  own(tensor: DeviceTensor): OnnxTensor {
    if (BlockTensor.isOf(tensor, this)) return tensor;
    throw new GraphError("onnxruntime: the tensor belongs to another backend; make it with this backend's tensor()");
  }

  enqueue(task: () => Promise<void>): void {
    this.#queue.add(task);
  }

  async read(_spec: TensorSpec, block: Block): Promise<TypedArray> {
    return await this.#queue.add(async () => {
      if (block.error) throw block.error;
      return block.data.slice();
    });
  }

  memory(): { readonly deviceBytes: number } {
    return { deviceBytes: this.#deviceBytes };
  }

  checkOpen(): void {
    if (this.#closed) throw new DisposedError("onnxruntime: the backend is closed");
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const executable of this.#executables) executable.close();
    await this.#queue.drained();
    for (const tensor of [...this.live]) tensor.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
