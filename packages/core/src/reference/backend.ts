// The reference interpreter as a backend: slow, exact, always there. What other backends are compared with.

import type { Backend, CompileOptions, DeviceTensor, Executable } from "../backend.ts";
import { Dim, elementsOf, type Shape, shapeText, sizeOf, sizesOf } from "../dim.ts";
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
import { expandComposites } from "../graph/passes.ts";
import { specText, type TensorSpec } from "../spec.ts";
import { emptyArray, evaluate, type ReferenceMode } from "./evaluate.ts";

/** How exactly the reference computes. */
export interface ReferenceOptions {
  /** `rounded` (default) rounds every result to its dtype; `float64` computes all floats in full. */
  readonly mode?: ReferenceMode;
}

/**
 * A backend that interprets graphs in plain loops. For tests and for defining what is right; not for speed. It takes
 * unbound graphs, and tensors of every dtype of at most 2 GiB. Errors of a run surface at `read`.
 */
export function reference(options: ReferenceOptions = {}): Backend {
  return new ReferenceBackend(options.mode ?? "rounded");
}

class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly limits = {
    symbolicDims: true,
    hostMemory: true,
    pagedCaches: false,
    chunkLength: 64,
    maximumTensorBytes: 2 ** 31,
  };
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
    return this.hold(spec, data ? this.#decode(spec, data) : emptyArray(spec), true);
  }

  /** @param owned whether it is the caller's to dispose of, or an executable's */
  hold(spec: TensorSpec, content: NdArray | SisaError, owned: boolean): ReferenceTensor {
    const tensor = new ReferenceTensor(this, spec, content, owned, () => this.#live.delete(tensor));
    this.#live.add(tensor);
    return tensor;
  }

  #decode(spec: TensorSpec, data: TypedArray): NdArray {
    checkData(spec, data, sizeOf(elementsOf(spec.shape)));
    return { shape: sizesOf(spec.shape), data: decode(spec.dtype, data, this.mode) };
  }

  /** @throws GraphError unless this backend made the tensor */
  own(tensor: DeviceTensor): ReferenceTensor {
    if (tensor instanceof ReferenceTensor && tensor.backend === this) return tensor;
    throw new GraphError("reference: the tensor belongs to another backend; make it with this backend's tensor()");
  }

  write(tensor: DeviceTensor, data: TypedArray): void {
    const own = this.own(tensor);
    own.replace(this.#decode(own.spec, data));
  }

  memory(): { deviceBytes: number } {
    let deviceBytes = 0;
    for (const { spec } of this.#live) deviceBytes += sizeOf(elementsOf(spec.shape)) * bytesOf(spec.dtype);
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
  readonly backend: ReferenceBackend;
  /** False for outputs, which their executable disposes of. */
  readonly owned: boolean;
  readonly #release: () => void;
  /** The value; the error of the run that should have given it; nothing once disposed. */
  #content: NdArray | SisaError | undefined;

  constructor(
    backend: ReferenceBackend,
    spec: TensorSpec,
    content: NdArray | SisaError,
    owned: boolean,
    release: () => void,
  ) {
    this.spec = spec;
    this.backend = backend;
    this.owned = owned;
    this.#content = content;
    this.#release = release;
  }

  /** @throws DisposedError */
  content(): NdArray | SisaError {
    if (this.#content === undefined) {
      throw new DisposedError(
        `a ${specText(this.spec)} tensor was used after it was disposed or its value replaced; keep() it`,
      );
    }
    return this.#content;
  }

  /** @throws DisposedError */
  replace(content: NdArray | SisaError): void {
    this.content();
    this.#content = content;
  }

  async read(): Promise<TypedArray> {
    const content = this.content();
    if (SisaError.isInstance(content)) throw content;
    return encode(this.spec.dtype, content);
  }

  keep(): DeviceTensor {
    return this.backend.hold(this.spec, this.content(), true);
  }

  dispose(): void {
    this.#content = undefined;
    this.#release();
  }
}

class ReferenceExecutable<I extends GraphInputs, O extends GraphOutputs> implements Executable<I, O> {
  readonly #backend: ReferenceBackend;
  readonly #graph: Graph<I, O>;
  readonly #state: readonly (readonly [string, string])[];
  readonly #constants: { readonly [name: string]: ReferenceTensor };
  /** The graph as the last run needed it: bound to these symbols, made of primitives alone. */
  #bound: { readonly symbols: string; readonly graph: Graph } | undefined;
  #outputs: readonly ReferenceTensor[] = [];
  #closed = false;

  constructor(backend: ReferenceBackend, graph: Graph<I, O>, options: CompileOptions<I, O>) {
    const constants: CompileOptions<GraphInputs, GraphOutputs>["constants"] = options.constants ?? {};
    this.#backend = backend;
    this.#graph = graph;
    this.#state = checkState(graph, options.state ?? {});
    this.#constants = Object.fromEntries(
      checkConstants(graph, constants, options.state ?? {}).map(([name, spec, data]) => [
        name,
        backend.hold(spec, { shape: sizesOf(spec.shape), data: decode(spec.dtype, data, backend.mode) }, true),
      ]),
    );
  }

  run(inputs: { readonly [N in keyof I]?: DeviceTensor }): { readonly [N in keyof O]: DeviceTensor } {
    this.#backend.checkOpen();
    if (this.#closed) throw new DisposedError("reference: the executable is closed");
    const tensors = checkInputs(this.#graph, inputs, this.#constants, this.#state);
    const contents = Object.entries(tensors).map(
      ([name, tensor]) => [name, this.#backend.own(tensor).content()] as const,
    );
    const states = new Map<string, ReferenceTensor>();
    for (const [input, output] of this.#state) {
      const tensor = tensors[input] && this.#backend.own(tensors[input]);
      if (tensor?.owned === false) {
        throw new GraphError(
          `run: state "${input}" is an output of an executable; keep() it, or make it with tensor()`,
        );
      }
      if (tensor) states.set(output, tensor);
    }
    const graph = this.#graphFor(boundSymbols(this.#graph, (name) => tensors[name]?.spec.shape));

    for (const tensor of this.#outputs) tensor.dispose();
    const results = runGraph(graph, contents, this.#backend.mode);
    const outputs = Object.entries(graph.outputs).map(([name, spec]) => {
      const result = SisaError.isInstance(results) ? results : results[name];
      if (result === undefined) throw new GraphError(`reference: output "${name}" was not computed`);
      const state = states.get(name);
      if (state === undefined) return [name, this.#backend.hold(spec, result, false)] as const;
      state.replace(result);
      return [name, state] as const;
    });
    this.#outputs = outputs.flatMap(([name, tensor]) => (states.has(name) ? [] : [tensor]));
    return Object.fromEntries(outputs) as { readonly [name: string]: DeviceTensor } as {
      readonly [N in keyof O]: DeviceTensor;
    };
  }

  #graphFor(symbols: Record<string, number>): Graph {
    const key = JSON.stringify(symbols);
    if (this.#bound?.symbols !== key) {
      this.#bound = { symbols: key, graph: expandComposites(this.#graph.bind(symbols), () => true) };
    }
    return this.#bound.graph;
  }

  close(): void {
    this.#closed = true;
    for (const tensor of [...this.#outputs, ...Object.values(this.#constants)]) tensor.dispose();
  }
}

/** The outputs; or, since errors of a run surface where somebody reads, the error of this run or of one before it. */
function runGraph(
  graph: Graph,
  inputs: readonly (readonly [string, NdArray | SisaError])[],
  mode: ReferenceMode,
): { readonly [name: string]: NdArray } | SisaError {
  const values: Record<string, NdArray> = {};
  for (const [name, content] of inputs) {
    if (SisaError.isInstance(content)) return content;
    values[name] = content;
  }
  try {
    return evaluate(graph, values, mode);
  } catch (error) {
    if (SisaError.isInstance(error)) return error;
    throw error;
  }
}

/**
 * State pairs as [input, output], checked.
 * @throws GraphError unless both exist and have one dtype and shape, and no output belongs to two inputs
 */
export function checkState(
  graph: Graph,
  state: { readonly [input: string]: string | undefined },
): readonly (readonly [string, string])[] {
  const owners = new Map<string, string>();
  return Object.entries(state).flatMap(([input, output]) => {
    if (output === undefined) return [];
    const from = graph.inputs[input];
    const to = graph.outputs[output];
    if (!from || !to) throw new GraphError(`state: "${input}" -> "${output}" must name an input and an output`);
    if (from.dtype !== to.dtype || shapeText(from.shape) !== shapeText(to.shape)) {
      throw new GraphError(`state: "${input}" is ${specText(from)} but "${output}" is ${specText(to)}`);
    }
    const owner = owners.get(output);
    if (owner !== undefined) throw new GraphError(`state: output "${output}" is for both "${owner}" and "${input}"`);
    owners.set(output, input);
    return [[input, output] as const];
  });
}

/**
 * Constants as [input, spec, data], checked.
 * @throws GraphError unless the input exists, is bound, holds that much data, and is not state
 */
export function checkConstants(
  graph: Graph,
  constants: { readonly [input: string]: TypedArray | undefined },
  state: { readonly [input: string]: string | undefined },
): readonly (readonly [string, TensorSpec, TypedArray])[] {
  return Object.entries(constants).flatMap(([name, data]) => {
    if (data === undefined) return [];
    const spec = graph.inputs[name];
    if (spec === undefined) throw new GraphError(`constants: ${unknownInput(graph, name)}`);
    if (state[name] !== undefined) throw new GraphError(`constants: input "${name}" is state, so it is not constant`);
    checkData(spec, data, sizeOf(elementsOf(spec.shape)));
    return [[name, spec, data] as const];
  });
}

/**
 * The tensors of a run, by input, checked. Shapes are checked by `boundSymbols`.
 * @throws GraphError unless there is one of the right dtype for each input that is not a constant, and one of its own
 *   for each that is state
 */
export function checkInputs<T extends { readonly spec: TensorSpec }>(
  graph: Graph,
  inputs: { readonly [name: string]: T | undefined },
  constants: { readonly [name: string]: T },
  state: readonly (readonly [input: string, output: string])[],
): { readonly [name: string]: T } {
  const owners = new Map<T, string>();
  for (const [name] of state) {
    const tensor = inputs[name];
    if (tensor === undefined) continue;
    const owner = owners.get(tensor);
    if (owner !== undefined) {
      throw new GraphError(`run: inputs "${owner}" and "${name}" are state, so each needs a tensor of its own`);
    }
    owners.set(tensor, name);
  }
  for (const [name, tensor] of Object.entries(inputs)) {
    if (tensor === undefined) continue;
    if (graph.inputs[name] === undefined) throw new GraphError(`run: ${unknownInput(graph, name)}`);
    if (constants[name]) throw new GraphError(`run: input "${name}" is a constant of this executable; leave it out`);
  }
  return Object.fromEntries(
    Object.entries(graph.inputs).map(([name, { dtype }]) => {
      const tensor = constants[name] ?? inputs[name];
      if (tensor === undefined) throw new GraphError(`run: input "${name}" is missing`);
      if (tensor.spec.dtype !== dtype) {
        throw new GraphError(`run: input "${name}" must be ${dtype}, got ${specText(tensor.spec)}`);
      }
      return [name, tensor];
    }),
  );
}

function unknownInput(graph: Graph, name: string): string {
  return `no input is named "${name}"; this graph has ${Object.keys(graph.inputs).join(", ")}`;
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

/** Checks the elements of a tensor. @throws GraphError unless the array is of the spec's type and of that length */
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
