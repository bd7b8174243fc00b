// ONNX Runtime behind the little that a backend needs of it: sessions that write into arrays of ours.
// onnxruntime-node in Node and its like, onnxruntime-web elsewhere; both are loaded when first asked for.

import { BackendUnavailableError, GraphError } from "@sisa/core";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { type ElementType, GraphBuilder as Graph, type GraphBuilder, modelBytes } from "./model-proto.ts";

/** What both packages export. */
interface OrtModule {
  readonly env: { readonly wasm: { numThreads?: number } };
  readonly InferenceSession: {
    create(model: Uint8Array, options?: InferenceSession.SessionOptions): Promise<InferenceSession>;
  };
  readonly Tensor: new (type: Tensor.Type, data: Tensor.DataType, dims: readonly number[]) => Tensor;
}

export type RuntimeData = Float32Array | Int32Array | Uint8Array;

/** An array in the form in which sessions take it. Sessions read and write `data` itself. */
export interface RuntimeTensor {
  readonly type: ElementType;
  readonly dims: readonly number[];
  data: RuntimeData;
}

export interface RuntimeOptions {
  /** Threads within one operation; default one per core that this process may use, in browsers what ONNX Runtime chooses. */
  readonly threads?: number | undefined;
}

/** Operator set of the models that sessions are made from. */
const opset = 24;

/** Constants up to this many bytes travel inside the model. Larger ones are handed over without being encoded. */
const inlineBytes = 1024;

const sentinel = "done";

/** Errors are thrown; what else ONNX Runtime would print is not meant for users. */
const silent = { logSeverityLevel: 4 } as const;

/** A loaded ONNX Runtime. */
export class Runtime {
  readonly #ort: OrtModule;
  readonly #options: RuntimeOptions;
  readonly #tensors = new WeakMap<RuntimeData, Tensor>();
  /** What a run that wrote all its outputs is rejected with; undefined where runs give their outputs back. */
  #completion: string | undefined;
  /** True where sessions write into the arrays they are given. */
  #writesInPlace = false;

  private constructor(ort: OrtModule, options: RuntimeOptions) {
    this.#ort = ort;
    this.#options = options;
  }

  /** @throws BackendUnavailableError where the package is not installed or cannot start */
  static async load(options: RuntimeOptions): Promise<Runtime> {
    const ort = await importRuntime();
    // In browsers all sessions share one pool, which the first of them starts.
    if (!isNode() && options.threads !== undefined) ort.env.wasm.numThreads = options.threads;
    const runtime = new Runtime(ort, options);
    await runtime.#probe();
    return runtime;
  }

  /** True where a run can change an array of ours in place, as caches need it. */
  get writesInPlace(): boolean {
    return this.#writesInPlace;
  }

  /**
   * Finds out how this runtime gives results back. onnxruntime-node 1.30 writes into the arrays that it is given and
   * then copies every output into a new one all the same, which takes longer than most graphs: 44 ms for 64 MB. It
   * stops before the first copy where the first output is no tensor, so models get a sequence as their first output,
   * and the error about it says that the run is complete.
   */
  async #probe(): Promise<void> {
    const graph = new Graph();
    const x = graph.input("x", "float32", [1]);
    graph.namedOutput(graph.node("Neg", [x]), "y", "float32", [1]);
    addSentinel(graph);
    const session = await this.#create(graph);
    const input = { type: "float32", dims: [1], data: Float32Array.of(1) } as const;
    const output = { type: "float32", dims: [1], data: new Float32Array(1) } as const;
    const fetches = { [sentinel]: null, y: this.#tensorOf(output) };
    try {
      await session.run({ x: this.#tensorOf(input) }, fetches);
    } catch (error) {
      this.#completion = messageOf(error);
    }
    this.#writesInPlace = output.data[0] === -1;
    if (!this.#writesInPlace) this.#completion = undefined;
    await session.release();
  }

  /** Compiles a model. @throws GraphError where ONNX Runtime refuses it */
  async session(graph: GraphBuilder): Promise<Session> {
    const quiet = this.#completion !== undefined;
    if (quiet) addSentinel(graph);
    const session = await this.#create(graph);
    return {
      run: async (feeds, fetches) => {
        const inputs = Object.fromEntries(
          Object.entries(feeds).map(([name, tensor]) => [name, this.#tensorOf(tensor)]),
        );
        const outputs = Object.fromEntries(
          Object.entries(fetches).map(([name, tensor]) => [name, this.#writesInPlace ? this.#tensorOf(tensor) : null]),
        );
        try {
          const results = await session.run(inputs, quiet ? { [sentinel]: null, ...outputs } : outputs, silent);
          if (this.#writesInPlace) return;
          for (const [name, tensor] of Object.entries(fetches)) {
            const data = results[name]?.data;
            if (data !== undefined) tensor.data.set(data as RuntimeData);
          }
        } catch (error) {
          if (messageOf(error) !== this.#completion) throw error;
        }
      },
      release: () => session.release(),
    };
  }

  async #create(graph: GraphBuilder): Promise<InferenceSession> {
    const external: { readonly path: string; readonly data: Uint8Array }[] = [];
    const model = modelBytes(graph, {
      name: "graph",
      opset,
      place(name, data) {
        if (data.length <= inlineBytes) return undefined;
        external.push({ path: name, data });
        return { location: name, offset: 0 };
      },
    });
    const threads = this.#options.threads ?? restrictedThreads();
    const options: InferenceSession.SessionOptions = {
      executionProviders: [isNode() ? "cpu" : "wasm"],
      executionMode: "sequential",
      graphOptimizationLevel: "all",
      ...silent,
      ...(threads !== undefined && { intraOpNumThreads: threads }),
      // Equal values that rematerialisation computes twice on purpose stay two.
      extra: { optimization: { disable_specified_optimizers: "CommonSubexpressionElimination" } },
      ...(external.length > 0 && {
        externalData: external.map(({ path, data }) => ({ path, data: asBuffer(data) })),
      }),
    };
    try {
      return await this.#ort.InferenceSession.create(model, options);
    } catch (error) {
      throw new GraphError(`onnxruntime refused the graph: ${messageOf(error)}`, { cause: error });
    }
  }

  #tensorOf(tensor: RuntimeTensor): Tensor {
    const known = this.#tensors.get(tensor.data);
    if (known !== undefined) return known;
    const made = new this.#ort.Tensor(tensor.type, tensor.data as Tensor.DataType, tensor.dims);
    this.#tensors.set(tensor.data, made);
    return made;
  }
}

export interface Session {
  /** Reads `feeds` and writes into `fetches`; names are those of the model. */
  run(
    feeds: { readonly [name: string]: RuntimeTensor },
    fetches: { readonly [name: string]: RuntimeTensor },
  ): Promise<void>;
  release(): Promise<void>;
}

function addSentinel(graph: GraphBuilder): void {
  const value = graph.node("SequenceEmpty", [], {}, { name: sentinel, output: sentinel });
  graph.sequenceOutput(value, "float32");
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

interface NodeLike {
  readonly process?: {
    readonly versions?: { readonly node?: string };
    getBuiltinModule?(name: "node:os"): { availableParallelism(): number; cpus(): readonly unknown[] };
  };
  readonly Buffer?: { from(data: ArrayBufferLike, offset: number, length: number): Uint8Array };
}

/**
 * How many cores this process may use, where those are not all (taskset, cpusets of containers). ONNX Runtime counts the
 * machine's, and threads that share a core wait for each other actively.
 */
function restrictedThreads(): number | undefined {
  const os = (globalThis as NodeLike).process?.getBuiltinModule?.("node:os");
  if (os === undefined) return undefined;
  const available = os.availableParallelism();
  return available < os.cpus().length ? available : undefined;
}

function isNode(): boolean {
  return (globalThis as NodeLike).process?.versions?.node !== undefined;
}

/** A file beside a model. The binding takes Buffers only. */
export function asBuffer(data: Uint8Array): Uint8Array {
  return (globalThis as NodeLike).Buffer?.from(data.buffer, data.byteOffset, data.byteLength) ?? data;
}

/** The module. @throws BackendUnavailableError where the package is not installed or cannot start */
export async function importRuntime(): Promise<OrtModule> {
  // Named by a variable, so that bundlers for browsers do not look for the native package.
  const native = "onnxruntime-node";
  try {
    if (isNode()) return (await import(/* @vite-ignore */ native)) as OrtModule;
    // The build without WebGPU and WebNN: half the download, and its `wasm` provider is the same.
    return (await import("onnxruntime-web/wasm")) as unknown as OrtModule;
  } catch (error) {
    const install = isNode()
      ? "ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node"
      : "npm install onnxruntime-web";
    throw new BackendUnavailableError(`onnxruntime: cannot be loaded (${messageOf(error)}); install it: ${install}`, {
      cause: error,
    });
  }
}
