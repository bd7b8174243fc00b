// What a backend is: a value that compiles graphs and holds tensors. No global state, no registration.
// A backend does not define what operations mean; the reference interpreter does.

import type { TypedArray } from "./dtype.ts";
import type { Graph, GraphInputs, GraphOutputs } from "./graph/graph.ts";
import type { TensorSpec } from "./spec.ts";

/** What a backend can take; asked before graphs are traced for it. */
export interface BackendLimits {
  /** True where graphs with unbound dims can be compiled, so that one executable serves all lengths. */
  readonly symbolicDims: boolean;
  /** Largest single tensor, in bytes. */
  readonly maximumTensorBytes: number;
}

/** How the inputs of a graph are held between runs of its executable. */
export interface CompileOptions<I extends GraphInputs, O extends GraphOutputs> {
  /** Pairs input -> output: after `run`, the handle passed for this input denotes that output's value. */
  readonly state?: { readonly [N in keyof I]?: keyof O & string };
  /** Values of inputs that never change, such as weights at inference. They are not passed to `run`. */
  readonly constants?: { readonly [N in keyof I]?: TypedArray };
}

/** Compiles graphs and holds tensors. Closing it frees everything that it holds, executables and tensors included. */
export interface Backend extends AsyncDisposable {
  /** As in errors and in the table of operations: "onnxruntime", "webgpu", "cuda", "reference". */
  readonly name: string;
  /** Sizes that must be bound, and the largest tensor. */
  readonly limits: BackendLimits;
  /** @throws UnsupportedOpError, GraphError */
  compile<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options?: CompileOptions<I, O>,
  ): Promise<Executable<I, O>>;
  /** A tensor on the device, zero where no data is given. The spec must be bound. */
  tensor(spec: TensorSpec, data?: TypedArray): DeviceTensor;
  /** Replaces a tensor's contents; takes effect after the runs enqueued before it. */
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
   */
  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor };
  /** Frees the program, its constants and the outputs that were not kept. */
  close(): void;
}

/** A handle to numbers on a backend's device. */
export interface DeviceTensor {
  /** Bound dtype and shape. */
  readonly spec: TensorSpec;
  /** A copy of the contents once all work enqueued so far is done. @throws DeviceError, DisposedError */
  read(): Promise<TypedArray>;
  /** A handle of its own that outlives the executable's next run; dispose it when done. */
  keep(): DeviceTensor;
  /** Gives the memory back; reading or passing the handle afterwards is a DisposedError. */
  dispose(): void;
}
