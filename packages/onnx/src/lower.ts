// From a graph to ONNX: composites without a lowering are expanded, then every node is spelled by its lowering.

import {
  type AnyTensor,
  type Dim,
  expandComposites,
  type Graph,
  GraphError,
  inputOp,
  kindOf,
  type Node,
  simplify,
  specText,
  type TensorSpec,
  type TypedArray,
  UnsupportedOpError,
} from "@sisa/core";
import { elementType } from "./element-type.ts";
import { type Dialect, Emitter, type EmitterScope, graphOutput, type Lowering } from "./lowering.ts";
import { lowerings } from "./lowerings/index.ts";
import { type Axes, elementTypeCode, GraphBuilder, type Value } from "./model-proto.ts";
import { Sizes, type SymbolSource } from "./sizes.ts";

/** Rules by the names of operations; "compose" takes an operation's composition, "unsupported" refuses it. */
export type Lowerings = { readonly [name: string]: Lowering | "compose" | "unsupported" };

export interface LowerOptions {
  readonly dialect: Dialect;
  /** Lowerings of operations that are not ours, or that take the place of ours. */
  readonly lowerings?: Lowerings | undefined;
  /** Values of inputs that are not passed in at run time. */
  readonly constants?: { readonly [name: string]: TypedArray | undefined } | undefined;
  /** int32 inputs that the model takes as int64, as other tools pass token ids. */
  readonly int64Inputs?: ReadonlySet<string>;
  /** What inputs and outputs are called in the model; default as in the graph. */
  readonly nameOfInput?: (name: string) => string;
  readonly nameOfOutput?: (name: string) => string;
  /** What an axis is called whose size is not known, by the text of that size; default that text. */
  readonly nameOfAxis?: (size: string) => string;
}

/** A lowered graph. */
export interface Lowered {
  readonly builder: GraphBuilder;
  /** Pairs of a graph input and the output that overwrites it in place. */
  readonly inPlace: ReadonlyMap<string, string>;
}

/**
 * Spells a graph in ONNX.
 * @throws UnsupportedOpError for an operation with neither lowering nor composition, and for floats other than float32;
 *   GraphError for sizes that no input tells
 */
export function lower(graph: Graph, options: LowerOptions): Lowered {
  const table: Lowerings = { ...lowerings, ...options.lowerings };
  const ruleOf = (node: Node): Lowering | undefined => {
    const rule = Object.hasOwn(table, node.op.name) ? table[node.op.name] : undefined;
    if (rule === "unsupported") throw unsupported(node, "it has no meaning in ONNX");
    return rule === undefined || rule === "compose" || rule.declines?.(node, options.dialect) ? undefined : rule;
  };
  const expanded = simplify(expandComposites(graph, (_op, node) => ruleOf(node) === undefined));

  const builder = new GraphBuilder();
  const values = new Map<AnyTensor, Value>();
  const sources = declareInputs(expanded, builder, values, options);
  const sizes = new Sizes(builder, sources);
  const readersOf = findReaders(expanded);
  const scope: EmitterScope = {
    builder,
    sizes,
    dialect: options.dialect,
    kept: new Map(),
    nodes: new Map(),
    operations: new Set(expanded.nodes.map((node) => node.op.name)),
  };

  expanded.nodes.forEach((node, index) => {
    const rule = ruleOf(node);
    if (rule === undefined) throw unsupported(node, "it is a primitive without a lowering; pass one as `lowerings`");
    for (const tensor of Object.values(node.outputs)) checkDType(tensor, node.op.name);
    const inputs = lazily(node.inputs, (tensor) => lookup(values, tensor));
    const readers = Object.fromEntries(
      Object.entries(node.outputs).map(([name, tensor]) => [name, readersOf.get(tensor) ?? []]),
    );
    const needs = Object.fromEntries(Object.entries(readers).map(([name, { length }]) => [name, length > 0]));
    const emit = new Emitter(scope, `${node.op.name}#${index}`, node.tag);
    const { attributes, outputs } = node;
    const lowered = rule.lower({ emit, inputs, attributes, specs: node.inputs, outputs, needs, readers });
    for (const [name, tensor] of Object.entries(outputs)) {
      const value = lowered[name];
      if (value !== undefined) values.set(tensor, value);
    }
  });
  declareOutputs(expanded, builder, values, options);
  builder.removeUnused();
  return { builder, inPlace: inPlacePairs(expanded) };
}

function unsupported(node: Node, why: string): UnsupportedOpError {
  return new UnsupportedOpError(node.op.name, "onnxruntime", why);
}

function lookup(values: ReadonlyMap<AnyTensor, Value>, tensor: AnyTensor): Value {
  const value = values.get(tensor);
  if (value === undefined) throw new GraphError(`lowering of ${tensor.node.op.name} gave no "${tensor.output}"`);
  return value;
}

/** Values that are looked up when they are asked for: one that an operation left out may never be. */
function lazily<T, V>(record: { readonly [name: string]: T }, find: (entry: T) => V): { readonly [name: string]: V } {
  const result: Record<string, V> = {};
  for (const [name, entry] of Object.entries(record)) {
    Object.defineProperty(result, name, { enumerable: true, get: () => find(entry) });
  }
  return result;
}

/** Names of the operations that read each tensor; an output of the graph is read by `graphOutput`. */
function findReaders(graph: Graph): ReadonlyMap<AnyTensor, readonly string[]> {
  const readers = new Map<AnyTensor, string[]>();
  const add = (tensor: AnyTensor, name: string) => {
    const names = readers.get(tensor);
    if (names) names.push(name);
    else readers.set(tensor, [name]);
  };
  for (const tensor of Object.values(graph.outputTensors)) add(tensor, graphOutput);
  for (const node of graph.nodes) for (const tensor of Object.values(node.inputs)) add(tensor, node.op.name);
  return readers;
}

/** @throws UnsupportedOpError for floats other than float32 */
function checkDType(spec: TensorSpec, op: string): void {
  if (spec.dtype === "float32" || kindOf(spec.dtype) !== "float") return;
  throw new UnsupportedOpError(op, "onnxruntime", `it runs float32 only, got ${specText(spec)}`);
}

function axesOf(spec: TensorSpec, { nameOfAxis = (size) => size }: LowerOptions): Axes {
  return spec.shape.map((size) => size.value ?? nameOfAxis(size.toString()));
}

function declareInputs(
  graph: Graph,
  builder: GraphBuilder,
  values: Map<AnyTensor, Value>,
  options: LowerOptions,
): ReadonlyMap<string, SymbolSource> {
  const { constants = {}, int64Inputs, nameOfInput = (name) => name } = options;
  const sources = new Map<string, SymbolSource>();
  const sums: { readonly size: Dim; readonly value: Value; readonly axis: number }[] = [];
  for (const [name, tensor] of Object.entries(graph.inputTensors)) {
    checkDType(tensor, inputOp.name);
    const type = elementType(tensor.dtype);
    const constant = constants[name];
    if (constant !== undefined) {
      values.set(tensor, builder.namedConstant(nameOfInput(name), constant, boundSizes(name, tensor), type));
      continue;
    }
    const wide = type === "int32" && int64Inputs?.has(name);
    const value = builder.input(nameOfInput(name), wide ? "int64" : type, axesOf(tensor, options));
    const narrowed = () => builder.node("Cast", [value], { to: elementTypeCode[type] }, { name: `input ${name}` });
    values.set(tensor, wide ? narrowed() : value);
    tensor.shape.forEach((size, axis) => {
      const [symbol] = size.symbols;
      if (symbol === undefined) return;
      if (!size.equals(symbol)) sums.push({ size, value, axis });
      else if (!sources.has(symbol)) sources.set(symbol, { value, axis });
    });
  }
  for (const { size, value, axis } of sums) {
    const [symbol, ...more] = [...size.symbols].filter((name) => !sources.has(name));
    if (symbol === undefined || more.length > 0) continue;
    const others = size.minus(symbol);
    if (!others.symbols.has(symbol)) sources.set(symbol, { value, axis, others });
  }
  return sources;
}

function boundSizes(name: string, { shape }: TensorSpec): number[] {
  return shape.map((size: Dim) => {
    if (size.value === undefined) throw new GraphError(`constant "${name}" has the size ${size}; bind it`);
    return size.value;
  });
}

function declareOutputs(
  graph: Graph,
  builder: GraphBuilder,
  values: ReadonlyMap<AnyTensor, Value>,
  options: LowerOptions,
): void {
  const { nameOfOutput = (name) => name } = options;
  for (const [name, tensor] of Object.entries(graph.outputTensors)) {
    builder.namedOutput(lookup(values, tensor), nameOfOutput(name), elementType(tensor.dtype), axesOf(tensor, options));
  }
}

/** Inputs of the graph that an operation overwrites, with the output that is the result. */
function inPlacePairs(graph: Graph): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  const inputs = new Map(Object.entries(graph.inputTensors).map(([name, tensor]) => [tensor, name]));
  for (const [name, { node }] of Object.entries(graph.outputTensors)) {
    const overwritten = node.op.inPlace === undefined ? undefined : node.inputs[node.op.inPlace];
    const input = overwritten && inputs.get(overwritten);
    if (input !== undefined && overwritten?.node.op === inputOp) pairs.set(input, name);
  }
  return pairs;
}
