// Passes over graphs. Each returns a new graph that computes the same outputs; none knows an operation by name.

import { Dim } from "../dim.ts";
import { allocate } from "../dtype.ts";
import { GraphError } from "../errors.ts";
import { constant, constantOp } from "../ops/constant.ts";
import { evaluateNode } from "../reference/evaluate.ts";
import { Graph, type GraphInputs, type GraphOutputs, rebuild, rewrite } from "./graph.ts";
import { applyOp, type Op, type OpOutputs } from "./op.ts";
import type { AnyTensor, Node } from "./tensor.ts";

/**
 * Replaces composites by their compositions, all the way down, where `shouldExpand` says so.
 * @throws GraphError where a composition does not give what its operation promises
 */
export function expandComposites<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  shouldExpand: (op: Op, node: Node) => boolean,
): Graph<I, O> {
  let current = graph;
  const wanted = (node: Node) => node.op.kind === "composite" && shouldExpand(node.op, node);
  while (current.nodes.some(wanted)) {
    current = rewrite(current, (node, inputs) => {
      if (!wanted(node)) return rebuild(node, inputs);
      const outputs = node.op.compose?.(inputs, node.attributes);
      if (outputs === undefined) throw new GraphError(`${node.op.name}: is a composite without a composition`);
      return outputs;
    });
  }
  return current;
}

/** Merges nodes that apply one operation to the same inputs with the same attributes and the same tag. */
export function eliminateCommonSubexpressions<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
): Graph<I, O> {
  const known = new Map<string, OpOutputs>();
  const names = new Map<AnyTensor, number>();
  const nameOf = (tensor: AnyTensor) => {
    const name = names.get(tensor) ?? names.size;
    names.set(tensor, name);
    return name;
  };
  return rewrite(graph, (node, inputs) => {
    if (node.op.inPlace !== undefined) return rebuild(node, inputs);
    const operands = Object.entries(inputs).map(([name, tensor]) => `${name}=${nameOf(tensor)}`);
    const key = [node.op.name, node.tag ?? "", ...operands, attributesKey(node.attributes)].join("|");
    const outputs = known.get(key) ?? rebuild(node, inputs);
    known.set(key, outputs);
    return outputs;
  });
}

function attributesKey(attributes: Node["attributes"]): string {
  const plain = (value: unknown): unknown => {
    if (value instanceof Dim) return { dim: value.toString() };
    if (ArrayBuffer.isView(value)) return { bytes: bytesKey(value) };
    if (typeof value === "number" && !Number.isFinite(value)) return { number: String(value) };
    if (Object.is(value, -0)) return { number: "-0" };
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value === "object" && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, plain(entry)]));
    }
    return value;
  };
  return JSON.stringify(plain(attributes));
}

const arrayNames = new WeakMap<ArrayBufferLike, number>();
let arrays = 0;

/** Small arrays by their contents, large ones by identity. */
function bytesKey(view: ArrayBufferView): string {
  const type = view.constructor.name;
  if (view.byteLength <= 256) {
    return type + [...new Uint8Array(view.buffer, view.byteOffset, view.byteLength)].join();
  }
  const name = arrayNames.get(view.buffer) ?? arrays++;
  arrayNames.set(view.buffer, name);
  return `${type}@${name}+${view.byteOffset}:${view.byteLength}`;
}

/** Largest constant that folding may create, in elements: a mask is worth folding, a table of megabytes is not. */
const largestFold = 65_536;

/** Computes nodes whose inputs are all constants, by the reference. */
export function foldConstants<I extends GraphInputs, O extends GraphOutputs>(graph: Graph<I, O>): Graph<I, O> {
  return rewrite(graph, (node, inputs) => {
    const outputs = rebuild(node, inputs);
    const operands = Object.values(inputs);
    const isConstant = (tensor: AnyTensor) => tensor.node.op === constantOp;
    if (node.op.kind !== "primitive" || operands.length === 0 || !operands.every(isConstant)) return outputs;
    const bound = Object.values(outputs).every((tensor) => {
      const size = tensor.shape.reduce((product, dim) => product * (dim.value ?? Number.POSITIVE_INFINITY), 1);
      return size <= largestFold && (tensor.dtype === "float32" || tensor.dtype === "int32" || tensor.dtype === "bool");
    });
    if (!bound) return outputs;
    const values = evaluateNode(
      node,
      Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, constantValue(tensor)])),
      "rounded",
    );
    return Object.fromEntries(
      Object.entries(outputs).map(([name, { dtype, shape }]) => {
        const data = allocate(dtype, values[name]?.data.length ?? 0);
        data.set(values[name]?.data ?? []);
        return [name, constant(data as Float32Array, dtype, shape)];
      }),
    );
  });
}

function constantValue(tensor: AnyTensor) {
  const data = tensor.node.attributes.data as Float64Array;
  return { shape: tensor.shape.map((size) => size.value ?? 0), data };
}

/** A graph with some of its outputs, and only the nodes and, unless told to keep them, the inputs those need. */
export function pickOutputs(
  graph: Graph,
  outputs: readonly string[],
  options: { readonly keepInputs?: boolean } = {},
): Graph {
  const picked = Object.fromEntries(
    outputs.map((name) => {
      const tensor = graph.outputTensors[name];
      if (tensor === undefined) {
        throw new GraphError(`no output is named "${name}"; this graph has ${Object.keys(graph.outputs).join(", ")}`);
      }
      return [name, tensor];
    }),
  );
  const smaller = new Graph(graph.inputTensors, picked);
  if (options.keepInputs) return smaller;
  const used = new Set<AnyTensor>(Object.values(picked));
  for (const node of smaller.nodes) for (const tensor of Object.values(node.inputs)) used.add(tensor);
  const inputs = Object.fromEntries(Object.entries(graph.inputTensors).filter(([, tensor]) => used.has(tensor)));
  return new Graph(inputs, picked);
}

/** Which nodes of the forward pass are worth computing twice to save memory. */
export type RematerializePolicy = (node: Node) => boolean;

/**
 * Computes cheap forward values again in the backward pass instead of keeping them. A value that the policy names and
 * that is read after `boundary` (the node that ends the forward pass) is cloned there; clones carry the tag
 * "rematerialize", so that they are not merged back.
 */
export function rematerialize<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  options: { readonly policy: RematerializePolicy; readonly boundary: string },
): Graph<I, O> {
  const end = graph.outputTensors[options.boundary]?.node;
  if (end === undefined) throw new GraphError(`rematerialize: no output is named "${options.boundary}"`);
  const forward = new Set(graph.nodes.slice(0, graph.nodes.indexOf(end) + 1));
  const replaced = new Map<AnyTensor, AnyTensor>();
  for (const tensor of Object.values(graph.inputTensors)) replaced.set(tensor, tensor);
  for (const node of forward) for (const tensor of Object.values(node.outputs)) replaced.set(tensor, tensor);

  const clones = new Map<Node, OpOutputs>();
  const clone = (tensor: AnyTensor): AnyTensor => {
    const { node } = tensor;
    if (!forward.has(node) || !options.policy(node)) return replaced.get(tensor) ?? tensor;
    let outputs = clones.get(node);
    if (outputs === undefined) {
      const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, input]) => [name, clone(input)]));
      outputs = applyOp(node.op, inputs, node.attributes, "rematerialize");
      clones.set(node, outputs);
    }
    return outputs[tensor.output] ?? tensor;
  };
  for (const node of graph.nodes) {
    if (forward.has(node)) continue;
    const inputs = Object.fromEntries(
      Object.entries(node.inputs).map(([name, tensor]) => [
        name,
        forward.has(tensor.node) ? clone(tensor) : (replaced.get(tensor) ?? tensor),
      ]),
    );
    const outputs = applyOp(node.op, inputs, node.attributes, node.tag);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const output = outputs[name];
      if (output) replaced.set(tensor, output);
    }
  }
  const outputs = Object.fromEntries(
    Object.entries(graph.outputTensors).map(([name, tensor]) => [name, replaced.get(tensor) ?? tensor]),
  );
  return new Graph(graph.inputTensors, outputs) as unknown as Graph<I, O>;
}

/** Folding, merging of common subexpressions, and what is then dead, in the one order that every compiler uses. */
export function simplify<I extends GraphInputs, O extends GraphOutputs>(graph: Graph<I, O>): Graph<I, O> {
  // Nodes that nothing needs are not part of a graph, so dead code goes by itself.
  return eliminateCommonSubexpressions(foldConstants(graph));
}
