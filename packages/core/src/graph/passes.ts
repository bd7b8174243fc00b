// Passes over graphs. Each returns a new graph that computes the same outputs; none knows an operation by name.

import { elementsOf, sizeOf, sizesOf } from "../dim.ts";
import { allocate } from "../dtype.ts";
import { GraphError } from "../errors.ts";
import { constant, constantOp } from "../ops/constant.ts";
import { evaluateNode } from "../reference/evaluate.ts";
import { Graph, type GraphInputs, type GraphOutputs, rebuild, rewrite } from "./graph.ts";
import { attributesKey } from "./keys.ts";
import { applyOp, type NdArray, type Op, type OpOutputs, withTag } from "./op.ts";
import type { AnyTensor, Node } from "./tensor.ts";

/**
 * Replaces composites by their compositions, all the way down, where `shouldExpand` says so. A composition carries the tag
 * of the node that it replaces.
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
      const outputs = withTag(node.tag, () => node.op.compose?.(inputs, node.attributes));
      if (outputs === undefined) throw new GraphError(`${node.op.name}: is a composite without a composition`);
      return outputs;
    });
  }
  return current;
}

/** Tensors that some node overwrites, so that readers and owners of them must stay as they are. */
function overwrittenTensors(graph: Graph): ReadonlySet<AnyTensor> {
  return new Set(graph.nodes.flatMap((node) => node.overwrites ?? []));
}

/**
 * Merges nodes that apply one operation to the same inputs with the same attributes and the same tag. Nodes that work
 * in place, and those whose results are overwritten, stay apart.
 */
export function eliminateCommonSubexpressions<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
): Graph<I, O> {
  const overwritten = overwrittenTensors(graph);
  const known = new Map<string, OpOutputs>();
  const names = new Map<object, number>();
  const nameOf = (part: Op | AnyTensor) => {
    const name = names.get(part) ?? names.size;
    names.set(part, name);
    return name;
  };
  return rewrite(graph, (node, inputs) => {
    if (node.overwrites || Object.values(node.outputs).some((tensor) => overwritten.has(tensor))) {
      return rebuild(node, inputs);
    }
    const operands = Object.entries(inputs).map(([name, tensor]) => `${name}=${nameOf(tensor)}`);
    const key = [nameOf(node.op), node.tag ?? "", ...operands, attributesKey(node.attributes)].join("|");
    const outputs = known.get(key) ?? rebuild(node, inputs);
    known.set(key, outputs);
    return outputs;
  });
}

/** Largest constant that folding may create, in elements: a table is worth folding, one of megabytes is not. */
const largestFold = 65_536;

/** Largest constant that may have more elements than what it is made from: a broadcast is cheaper than its result. */
const largestGrowth = 256;

/**
 * Computes nodes whose inputs are all constants, and sizes that are bound, by the reference. Results that are large, not
 * bound, or of a dtype that constants of several elements do not have stay as they are; so do broadcasts, unless small.
 */
export function foldConstants<I extends GraphInputs, O extends GraphOutputs>(graph: Graph<I, O>): Graph<I, O> {
  return rewrite(graph, (node, inputs) => {
    const outputs = rebuild(node, inputs);
    const operands = Object.values(inputs);
    const known = node.op.shapeOnly ? isBound : (tensor: AnyTensor) => tensor.node.op === constantOp;
    if (node.op.kind !== "primitive" || operands.length === 0 || !operands.every(known)) return outputs;
    const given = operands.reduce((total, tensor) => total + countOf(tensor), 0);
    const limit = Math.min(largestFold, Math.max(largestGrowth, given));
    if (!Object.values(outputs).every((tensor) => hasArrays(tensor) && countOf(tensor) <= limit)) return outputs;
    const values = evaluateNode(
      node,
      mapValues(inputs, node.op.shapeOnly ? withoutElements : constantValue),
      "rounded",
    );
    return mapValues(outputs, ({ dtype, shape }, name) => {
      const data = allocate(dtype, values[name]?.data.length ?? 0);
      data.set(values[name]?.data ?? []);
      return constant(data as Float32Array, dtype, shape);
    });
  });
}

function isBound({ shape }: AnyTensor): boolean {
  return shape.every(({ value }) => value !== undefined);
}

/** Number of elements; infinite where it is not bound. */
function countOf(tensor: AnyTensor): number {
  return isBound(tensor) ? sizeOf(elementsOf(tensor.shape)) : Number.POSITIVE_INFINITY;
}

function hasArrays({ dtype }: AnyTensor): boolean {
  return dtype === "float32" || dtype === "int32" || dtype === "bool";
}

function constantValue({ node }: AnyTensor): NdArray {
  const { value } = evaluateNode(node, {}, "rounded");
  if (value === undefined) throw new GraphError("foldConstants: a constant has no value");
  return value;
}

function withoutElements({ shape }: AnyTensor): NdArray {
  return { shape: sizesOf(shape), data: new Float64Array(0) };
}

function mapValues<T, U>(record: { readonly [name: string]: T }, rule: (value: T, name: string) => U) {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, rule(value, name)] as const));
}

/**
 * A graph with some of its outputs, and only the nodes and inputs those need.
 * @param options.keepInputs keep all inputs, needed or not; default false
 * @throws GraphError for an output that the graph does not have
 */
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
  const smaller = new Graph(graph.inputTensors, picked, graph.nodes);
  if (options.keepInputs) return smaller;
  const used = new Set<AnyTensor>(Object.values(picked));
  for (const node of smaller.nodes) for (const tensor of Object.values(node.inputs)) used.add(tensor);
  const inputs = Object.fromEntries(Object.entries(graph.inputTensors).filter(([, tensor]) => used.has(tensor)));
  return new Graph(inputs, picked, smaller.nodes);
}

/** Which nodes of the forward pass are worth computing twice to save memory. */
export type RematerializePolicy = (node: Node) => boolean;

/**
 * Computes cheap forward values again in the backward pass instead of keeping them. A value that the policy names and
 * that is read after `boundary` (the output whose node ends the forward pass) is cloned just before its first reader,
 * with everything it needs that the policy names too; so a value that the policy does not name bounds how much is
 * computed again at a time. Clones carry the tag "rematerialize", so that they are not merged back.
 *
 * @param options.policy   which values are computed again
 * @param options.boundary name of the output that ends the forward pass
 * @throws GraphError where no output has the name `boundary`
 */
export function rematerialize<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  options: { readonly policy: RematerializePolicy; readonly boundary: string },
): Graph<I, O> {
  const end = graph.outputTensors[options.boundary]?.node;
  if (end === undefined) {
    throw new GraphError(
      `rematerialize: no output is named "${options.boundary}"; this graph has ${Object.keys(graph.outputs).join(", ")}`,
    );
  }
  const kept = graph.nodes.slice(0, graph.nodes.indexOf(end) + 1);
  const overwritten = overwrittenTensors(graph);
  const cheap = new Set(
    kept.filter(
      (node) =>
        !node.overwrites &&
        !Object.values(node.inputs).some((tensor) => overwritten.has(tensor)) &&
        options.policy(node),
    ),
  );

  const clones = new Map<Node, OpOutputs>();
  const cloned = (tensor: AnyTensor) => clones.get(tensor.node)?.[tensor.output] ?? tensor;
  const clone = (node: Node) => {
    const needed = new Set<Node>();
    const pending = [node];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      if (!cheap.has(next) || clones.has(next) || needed.has(next)) continue;
      needed.add(next);
      for (const tensor of Object.values(next.inputs)) pending.push(tensor.node);
    }
    // What was created first is needed first.
    for (const next of [...needed].sort((a, b) => a.id - b.id)) {
      const tag = next.tag === undefined ? "rematerialize" : `${next.tag}, rematerialize`;
      clones.set(next, applyOp(next.op, mapValues(next.inputs, cloned), next.attributes, tag));
    }
  };

  const forward = new Set(kept);
  return rewrite(graph, (node, inputs) => {
    if (forward.has(node)) return node.outputs;
    for (const tensor of Object.values(node.inputs)) clone(tensor.node);
    return rebuild(
      node,
      mapValues(node.inputs, (tensor, name) => (clones.has(tensor.node) ? cloned(tensor) : (inputs[name] ?? tensor))),
    );
  });
}

/** Folding, merging of common subexpressions, and what is then dead, in the one order that every compiler uses. */
export function simplify<I extends GraphInputs, O extends GraphOutputs>(graph: Graph<I, O>): Graph<I, O> {
  // Nodes that nothing needs are not part of a graph, so dead code goes by itself.
  return eliminateCommonSubexpressions(foldConstants(graph));
}
