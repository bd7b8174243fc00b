// The reference interpreter as a backend: slow, exact, always there. What other backends are compared with.

import type { Backend, CompileOptions, DeviceTensor, Executable } from "../backend.ts";
import { Dim, type Shape, shapeText, sizesOf } from "../dim.ts";
import {
  allocate,
  bytesOf,
  type DType,
  fromBfloat16Bits,
  fromFloat16Bits,
  roundTo,
  type TypedArray,
  toBfloat16Bits,
  toFloat16Bits,
} from "../dtype.ts";
import { DisposedError, GraphError, SisaError } from "../errors.ts";
import type { Graph, GraphInputs, GraphOutputs } from "../graph/graph.ts";
import type { NdArray } from "../graph/op.ts";
import { specText, type TensorSpec } from "../spec.ts";
import { emptyArray, evaluate, type ReferenceMode } from "./evaluate.ts";

export interface ReferenceOptions {
  /** `rounded` (default) rounds every result to its dtype; `float64` computes all floats in full. */
  readonly mode?: ReferenceMode;
}

/** A backend that interprets graphs in plain loops. For tests and for defining what is right; not for speed. */
export function reference(options: ReferenceOptions = {}): Backend {
  return new ReferenceBackend(options.mode ?? "rounded");
}

class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly limits = { symbolicDims: true, maximumTensorBytes: 2 ** 31 };
  readonly mode: ReferenceMode;
  readonly #live = new Set<ReferenceTensor>();
  #closed = false;

  constructor(mode: ReferenceMode) {
    this.mode = mode;
  }

  async compile<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options: CompileOptions<I, O> = {},
  ): Promise<Executable<I, O>> {
    this.checkOpen();
    return new ReferenceExecutable(this, graph, options);
  }

  tensor(spec: TensorSpec, data?: TypedArray): DeviceTensor {
    this.checkOpen();
    const value = emptyArray(spec);
    const tensor = this.hold(spec, value);
    if (data) this.write(tensor, data);
    return tensor;
  }

  hold(spec: TensorSpec, value: NdArray): ReferenceTensor {
    const tensor = new ReferenceTensor(this, spec, value, () => this.#live.delete(tensor));
    this.#live.add(tensor);
    return tensor;
  }

  write(tensor: DeviceTensor, data: TypedArray): void {
    const own = ownTensor(tensor);
    const value = own.value();
    checkData(own.spec, data, value.data.length);
    own.replace({ shape: value.shape, data: decode(own.spec.dtype, data, this.mode) });
  }

  memory(): { deviceBytes: number } {
    let deviceBytes = 0;
    for (const tensor of this.#live) deviceBytes += tensor.value().data.length * bytesOf(tensor.spec.dtype);
    return { deviceBytes };
  }

  async close(): Promise<void> {
    for (const tensor of [...this.#live]) tensor.dispose();
    this.#closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  checkOpen(): void {
    if (this.#closed) throw new DisposedError("reference: the backend is closed");
  }
}

class ReferenceTensor implements DeviceTensor {
  readonly spec: TensorSpec;
  readonly #backend: ReferenceBackend;
  readonly #release: () => void;
  #value: NdArray | undefined;
  #error: unknown;

  constructor(
    backend: ReferenceBackend,
    spec: TensorSpec,
    value: NdArray | undefined,
    release: () => void,
    error?: unknown,
  ) {
    this.spec = spec;
    this.#backend = backend;
    this.#value = value;
    this.#release = release;
    this.#error = error;
  }

  value(): NdArray {
    if (this.#error !== undefined) throw this.#error;
    if (this.#value === undefined) {
      throw new DisposedError(
        `a ${specText(this.spec)} tensor was used after it was disposed or its value replaced; keep() it`,
      );
    }
    return this.#value;
  }

  replace(value: NdArray): void {
    this.#value = value;
  }

  async read(): Promise<TypedArray> {
    return encode(this.spec.dtype, this.value());
  }

  keep(): DeviceTensor {
    return this.#backend.hold(this.spec, this.value());
  }

  dispose(): void {
    this.#value = undefined;
    this.#release();
  }
}

class ReferenceExecutable<I extends GraphInputs, O extends GraphOutputs> implements Executable<I, O> {
  readonly #backend: ReferenceBackend;
  readonly #graph: Graph<I, O>;
  readonly #state: readonly (readonly [string, string])[];
  readonly #constants: { readonly [name: string]: TypedArray };
  #outputs: ReferenceTensor[] = [];
  #closed = false;

  constructor(backend: ReferenceBackend, graph: Graph<I, O>, options: CompileOptions<I, O>) {
    this.#backend = backend;
    this.#graph = graph;
    this.#state = checkState(graph, options.state ?? {});
    this.#constants = Object.fromEntries(
      Object.entries(options.constants ?? {}).flatMap(([name, data]) => (data ? [[name, data as TypedArray]] : [])),
    );
  }

  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor } {
    this.#backend.checkOpen();
    if (this.#closed) throw new DisposedError("reference: the executable is closed");
    const given: { readonly [name: string]: DeviceTensor | undefined } = inputs;
    const symbols = boundSymbols(this.#graph, (name) => given[name]?.spec.shape);
    const graph = Object.keys(symbols).length > 0 ? this.#graph.bind(symbols) : this.#graph;
    const values = Object.fromEntries(
      Object.entries(graph.inputs).map(([name, spec]) => {
        const constant = this.#constants[name];
        if (constant)
          return [name, { shape: sizesOf(spec.shape), data: decode(spec.dtype, constant, this.#backend.mode) }];
        const tensor = given[name];
        if (tensor === undefined) throw new GraphError(`run: input "${name}" is missing`);
        return [name, ownTensor(tensor).value()];
      }),
    );
    for (const tensor of this.#outputs) tensor.dispose();
    this.#outputs = [];

    const states = new Map(this.#state.map(([input, output]) => [output, given[input]]));
    let results: { readonly [name: string]: NdArray } = {};
    let failure: unknown;
    try {
      results = evaluate(graph, values, this.#backend.mode);
    } catch (error) {
      // Like every backend, errors of a run surface when somebody reads.
      if (!SisaError.isInstance(error)) throw error;
      failure = error;
    }
    const outputs = Object.entries(graph.outputs).map(([name, spec]) => {
      const state = states.get(name);
      const value = results[name];
      if (state && value) {
        ownTensor(state).replace(value);
        return [name, state];
      }
      const tensor = value
        ? this.#backend.hold(spec, value)
        : new ReferenceTensor(this.#backend, spec, undefined, () => {}, failure);
      this.#outputs.push(tensor);
      return [name, tensor];
    });
    return Object.fromEntries(outputs) as { [N in keyof O]: DeviceTensor };
  }

  close(): void {
    this.#closed = true;
    for (const tensor of this.#outputs) tensor.dispose();
  }
}

function ownTensor(tensor: DeviceTensor): ReferenceTensor {
  if (tensor instanceof ReferenceTensor) return tensor;
  throw new GraphError("reference: the tensor belongs to another backend; make it with this backend's tensor()");
}

/**
 * State pairs as [input, output], checked: both must exist and look alike.
 * @throws GraphError
 */
export function checkState(
  graph: Graph,
  state: { readonly [input: string]: string | undefined },
): readonly (readonly [string, string])[] {
  return Object.entries(state).flatMap(([input, output]) => {
    if (output === undefined) return [];
    const from = graph.inputs[input];
    const to = graph.outputs[output];
    if (!from || !to) throw new GraphError(`state: "${input}" -> "${output}" must name an input and an output`);
    if (from.dtype !== to.dtype || shapeText(from.shape) !== shapeText(to.shape)) {
      throw new GraphError(`state: "${input}" is ${specText(from)} but "${output}" is ${specText(to)}`);
    }
    return [[input, output] as const];
  });
}

/**
 * What a graph's symbols stand for, from the shapes that are passed in.
 * @throws GraphError where a shape does not fit or a symbol stands for two sizes
 */
export function boundSymbols(graph: Graph, shapeOf: (input: string) => Shape | undefined): Record<string, number> {
  const symbols: Record<string, number> = {};
  const entries = Object.entries(graph.inputs);
  for (const [name, { shape }] of entries) {
    const given = shapeOf(name);
    if (given === undefined) continue;
    shape.forEach((size, axis) => {
      const value = given[axis]?.value;
      const [symbol] = size.symbols;
      if (value === undefined || symbol === undefined || !size.equals(symbol)) return;
      if ((symbols[symbol] ?? value) !== value) {
        throw new GraphError(`run: dim ${symbol} is ${symbols[symbol]} elsewhere but ${value} in input "${name}"`);
      }
      symbols[symbol] = value;
    });
  }
  for (const [name, { shape }] of entries) {
    const given = shapeOf(name);
    const expected = shape.map((size) => size.bind(symbols));
    const fits =
      given === undefined ||
      (given.length === shape.length && expected.every((size, axis) => size.equals(given[axis] ?? Dim.of(-1))));
    if (!fits) throw new GraphError(`run: input "${name}" must be ${shapeText(expected)}, got ${shapeText(given)}`);
  }
  return symbols;
}

/** @throws GraphError unless the data fits the spec */
export function checkData(spec: TensorSpec, data: TypedArray, length: number): void {
  const expected = allocate(spec.dtype, 0).constructor;
  if (data.constructor !== expected || data.length !== length) {
    throw new GraphError(
      `expected a ${expected.name} of ${length} for ${specText(spec)}, got a ${data.constructor.name} of ${data.length}`,
    );
  }
}

function decode(dtype: DType, data: TypedArray, mode: ReferenceMode): NdArray["data"] {
  switch (dtype) {
    case "int32":
      return Int32Array.from(data);
    case "bool":
      return Uint8Array.from(data, (value) => (value ? 1 : 0));
    case "float16":
      return Float64Array.from(data, fromFloat16Bits);
    case "bfloat16":
      return Float64Array.from(data, fromBfloat16Bits);
    default:
      return Float64Array.from(data, (value) => (mode === "rounded" ? roundTo(dtype, value) : value));
  }
}

function encode(dtype: DType, { data }: NdArray): TypedArray {
  switch (dtype) {
    case "float32":
      return Float32Array.from(data);
    case "float64":
      return Float64Array.from(data);
    case "float16":
      return Uint16Array.from(data, toFloat16Bits);
    case "bfloat16":
      return Uint16Array.from(data, toBfloat16Bits);
    case "int32":
      return Int32Array.from(data);
    case "bool":
      return Uint8Array.from(data);
    default:
      return dtype satisfies never;
  }
}
