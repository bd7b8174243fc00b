// The slow interpreter that defines what graphs mean: every primitive by its reference, in plain loops.

import { sizesOf } from "../dim.ts";
import { type DType, kindOf, roundTo } from "../dtype.ts";
import { GraphError } from "../errors.ts";
import type { Graph } from "../graph/graph.ts";
import type { NdArray } from "../graph/op.ts";
import type { AnyTensor, Node } from "../graph/tensor.ts";
import type { TensorSpec } from "../spec.ts";

/** `float64` computes every float in full; `rounded` rounds each result to its dtype. */
export type ReferenceMode = "float64" | "rounded";

type Values = { readonly [name: string]: NdArray };

/** An array of zeros that can hold a spec. @throws GraphError where the spec is not bound */
export function emptyArray(spec: TensorSpec): NdArray {
  const shape = sizesOf(spec.shape);
  const length = shape.reduce((a, b) => a * b, 1);
  return { shape, data: storage(spec.dtype, length) };
}

function storage(dtype: DType, length: number): NdArray["data"] {
  const kind = kindOf(dtype);
  return kind === "float" ? new Float64Array(length) : kind === "int" ? new Int32Array(length) : new Uint8Array(length);
}

/**
 * The outputs of one node with bound sizes; a composite is computed by its composition.
 * @throws GraphError where an operation has neither a reference nor a composition; DataError for ids outside of a table
 */
export function evaluateNode(node: Node, inputs: Values, mode: ReferenceMode): Values {
  const { op } = node;
  if (op.kind === "composite") return evaluateComposite(node, inputs, mode);
  const outputs = Object.fromEntries(Object.entries(node.outputs).map(([name, spec]) => [name, emptyArray(spec)]));
  if (op.reference === undefined) throw new GraphError(`${op.name}: is a primitive without a reference`);
  op.reference(inputs, node.attributes, outputs);
  if (mode === "rounded") {
    for (const [name, { dtype }] of Object.entries(node.outputs)) round(dtype, outputs[name]?.data);
  }
  return outputs;
}

function round(dtype: DType, data: NdArray["data"] | undefined): void {
  if (data === undefined || dtype === "float64" || kindOf(dtype) !== "float") return;
  for (let i = 0; i < data.length; i++) data[i] = roundTo(dtype, data[i] ?? 0);
}

function evaluateComposite(node: Node, inputs: Values, mode: ReferenceMode): Values {
  const composed = node.op.compose?.(node.inputs, node.attributes);
  if (composed === undefined) throw new GraphError(`${node.op.name}: is a composite without a composition`);
  const known = new Map<AnyTensor, NdArray>();
  for (const [name, tensor] of Object.entries(node.inputs)) {
    const value = inputs[name];
    if (value) known.set(tensor, value);
  }
  evaluateTensors(Object.values(composed), known, mode);
  return Object.fromEntries(Object.entries(composed).map(([name, tensor]) => [name, heldValue(known, tensor)]));
}

function heldValue(known: ReadonlyMap<AnyTensor, NdArray>, tensor: AnyTensor): NdArray {
  const value = known.get(tensor);
  if (value === undefined) throw new GraphError(`reference: a value of ${tensor.node.op.name} is missing`);
  return value;
}

/** Computes tensors, and everything they need, from the values that are known. */
function evaluateTensors(tensors: readonly AnyTensor[], known: Map<AnyTensor, NdArray>, mode: ReferenceMode): void {
  const needed = new Set<Node>();
  const pending = [...tensors];
  for (let tensor = pending.pop(); tensor !== undefined; tensor = pending.pop()) {
    if (known.has(tensor) || needed.has(tensor.node)) continue;
    needed.add(tensor.node);
    pending.push(...Object.values(tensor.node.inputs));
  }
  const nodes = [...needed].sort((a, b) => a.id - b.id);
  evaluateNodes(nodes, new Set(tensors), known, mode);
}

/** Runs nodes in order and forgets a value once nothing reads it any more. */
function evaluateNodes(
  nodes: readonly Node[],
  keep: ReadonlySet<AnyTensor>,
  known: Map<AnyTensor, NdArray>,
  mode: ReferenceMode,
): void {
  const readers = new Map<AnyTensor, number>();
  for (const node of nodes) {
    for (const tensor of Object.values(node.inputs)) readers.set(tensor, (readers.get(tensor) ?? 0) + 1);
  }
  for (const node of nodes) {
    const inputs = Object.fromEntries(
      Object.entries(node.inputs).map(([name, tensor]) => [name, heldValue(known, tensor)]),
    );
    const outputs = evaluateNode(node, inputs, mode);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const value = outputs[name];
      if (value && (readers.has(tensor) || keep.has(tensor))) known.set(tensor, value);
    }
    for (const tensor of Object.values(node.inputs)) {
      const left = (readers.get(tensor) ?? 0) - 1;
      readers.set(tensor, left);
      if (left === 0 && !keep.has(tensor)) known.delete(tensor);
    }
  }
}

/**
 * Outputs of a bound graph for these inputs.
 * @param mode default `float64`
 * @throws GraphError where an input is missing or of the wrong size; DataError for ids outside of a table
 */
export function evaluate(graph: Graph, inputs: Values, mode: ReferenceMode = "float64"): Values {
  const known = new Map<AnyTensor, NdArray>();
  for (const [name, tensor] of Object.entries(graph.inputTensors)) {
    const value = inputs[name];
    const shape = sizesOf(tensor.shape);
    if (value === undefined) throw new GraphError(`reference: input "${name}" is missing`);
    if (value.shape.join() !== shape.join()) {
      throw new GraphError(`reference: input "${name}" must be [${shape}], got [${value.shape}]`);
    }
    known.set(tensor, value);
  }
  const outputs = Object.entries(graph.outputTensors);
  evaluateNodes(graph.nodes, new Set(outputs.map(([, tensor]) => tensor)), known, mode);
  return Object.fromEntries(outputs.map(([name, tensor]) => [name, heldValue(known, tensor)]));
}
