// What a backend is: a value that compiles graphs and holds tensors. No global state, no registration.
// A backend does not define what operations mean; the reference interpreter does.

import type { TypedArray } from "./dtype.ts";
import type { Graph, GraphInputs, GraphOutputs } from "./graph/graph.ts";
import type { TensorSpec } from "./spec.ts";

/** What a backend can take; asked before graphs are traced for it. */
export interface BackendLimits {
  /** True where graphs with unbound dims can be compiled, so that one executable serves all lengths. */
  readonly symbolicDims: boolean;
  /** True where tensors lie in the host's memory, so that reading one takes no more than a copy. */
  readonly hostMemory: boolean;
  /** True where attention reads keys where they lie in pages of a pool, so that sequences may share memory. */
  readonly pagedCaches: boolean;
  /** Tokens of a prompt that one run should take, so that it is busy and others wait little. Longer prompts are cut. */
  readonly chunkLength: number;
  /** Largest single tensor, in bytes. */
  readonly maximumTensorBytes: number;
}

/** How the inputs of a graph are held between runs of its executable. */
export interface CompileOptions<I extends GraphInputs, O extends GraphOutputs> {
  /** Pairs input -> output: after `run`, the handle passed for this input denotes that output's value. Default none. */
  readonly state?: { readonly [N in keyof I]?: keyof O & string };
  /**
   * Values of inputs that never change, such as weights at inference, which are not passed to `run`: those that the arrays
   * have at this moment. Backends with memory of their own hold what several programs take from one array once. Default none.
   */
  readonly constants?: { readonly [N in keyof I]?: TypedArray };
}

/** Compiles graphs and holds tensors. Closing it frees everything that it holds, executables and tensors included. */
export interface Backend extends AsyncDisposable {
  /** As in errors and in the table of operations: "onnxruntime", "webgpu", "cuda", "reference". */
  readonly name: string;
  /** What it can take. */
  readonly limits: BackendLimits;
  /**
   * A program for the graph; it holds its constants on the device until it is closed.
   * @throws UnsupportedOpError for an operation or dtype that the backend has no rule for; GraphError for state or
   *   constants that do not fit the graph, and for unbound dims where `limits.symbolicDims` is false; DisposedError
   *   once the backend is closed
   */
  compile<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options?: CompileOptions<I, O>,
  ): Promise<Executable<I, O>>;
  /**
   * A tensor on the device, allocated once.
   * @param spec must be bound
   * @param data row major, as `TypedArray` tells; default zeros
   * @throws GraphError where the spec is not bound or the data does not fit it; DisposedError once the backend is
   *   closed
   */
  tensor(spec: TensorSpec, data?: TypedArray): DeviceTensor;
  /**
   * Replaces a tensor's contents; takes effect after the runs enqueued before it.
   * @throws GraphError where the data does not fit, or the tensor is an output or another backend's; DisposedError
   *   where it was disposed of
   */
  write(tensor: DeviceTensor, data: TypedArray): void;
  /** Bytes of the tensors and executables that are alive. */
  memory(): {
    /** Of the device, or of the host where there is no other. */
    readonly deviceBytes: number;
  };
  /** Frees everything; a second call does nothing. `await using` calls it. */
  close(): Promise<void>;
}

/** A graph compiled for a backend, with the constants and state it was compiled with. */
export interface Executable<I extends GraphInputs, O extends GraphOutputs> {
  /**
   * Enqueues one run and returns at once. Inputs given as `constants` are left out.
   * Outputs that are not state hold until the next `run` of this executable, unless kept.
   * @throws GraphError where an input is missing, unknown, of another dtype or shape, or state that is not a tensor of
   *   its own; DisposedError where one was disposed of, or the executable or backend is closed
   */
  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor };
  /** Frees the program, constants that no other program reads, and the outputs that were not kept. */
  close(): void;
}

/** A handle to numbers on a backend's device. */
export interface DeviceTensor {
  /** Bound dtype and shape. */
  readonly spec: TensorSpec;
  /**
   * A copy of the contents, row major, once all work enqueued so far is done.
   * @throws DeviceError where a run that it waits for failed; DisposedError where it was disposed of or replaced
   */
  read(): Promise<TypedArray>;
  /** A handle of its own that outlives the executable's next run; dispose it when done. @throws DisposedError */
  keep(): DeviceTensor;
  /** Gives the memory back; reading or passing the handle afterwards is a DisposedError. */
  dispose(): void;
}
