// What a backend is: a value that compiles graphs and holds tensors. No global state, no registration.
// A backend does not define what operations mean; the reference interpreter does.

import type { TypedArray } from "./dtype.ts";
import type { Graph, GraphInputs, GraphOutputs } from "./graph/graph.ts";
import type { TensorSpec } from "./spec.ts";

export interface BackendLimits {
  /** True where graphs with unbound dims can be compiled, so that one executable serves all lengths. */
  readonly symbolicDims: boolean;
  /** Largest single tensor, in bytes. */
  readonly maximumTensorBytes: number;
}

export interface CompileOptions<I extends GraphInputs, O extends GraphOutputs> {
  /** Pairs input -> output: after `run`, the handle passed for this input denotes that output's value. */
  readonly state?: { readonly [N in keyof I]?: keyof O & string };
  /** Values of inputs that never change, such as weights at inference. They are not passed to `run`. */
  readonly constants?: { readonly [N in keyof I]?: TypedArray };
}

export interface Backend extends AsyncDisposable {
  readonly name: string;
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
  memory(): { readonly deviceBytes: number };
  close(): Promise<void>;
}

export interface Executable<I extends GraphInputs, O extends GraphOutputs> {
  /**
   * Enqueues one run and returns at once. Inputs given as `constants` are left out.
   * Outputs that are not state hold until the next `run` of this executable, unless kept.
   */
  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor };
  close(): void;
}

export interface DeviceTensor {
  /** Bound dtype and shape. */
  readonly spec: TensorSpec;
  /** A copy of the contents once all work enqueued so far is done. @throws DeviceError, DisposedError */
  read(): Promise<TypedArray>;
  /** A handle of its own that outlives the executable's next run; dispose it when done. */
  keep(): DeviceTensor;
  dispose(): void;
}
