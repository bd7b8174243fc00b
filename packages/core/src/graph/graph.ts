// A graph: a static, typed program from named inputs to named outputs. Traced once from ordinary functions.

import { sameShape } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { type KindOfSpec, specText, type TensorSpec } from "../spec.ts";
import { apply, applyOp, bindAttributes, definePrimitive, type OpInputs, type OpOutputs } from "./op.ts";
import { printGraph } from "./print.ts";
import { type AnyTensor, isTensor, type Node, type Tensor } from "./tensor.ts";
import { verify } from "./verify.ts";

/** Specs of a graph's inputs, by name. */
export type GraphInputs = { readonly [name: string]: TensorSpec };
/** Specs of a graph's outputs, by name. */
export type GraphOutputs = { readonly [name: string]: TensorSpec };

/** Stands for a value that is passed in when the graph runs. */
export const inputOp = /* @__PURE__ */ definePrimitive<"input", OpInputs, { name: string; spec: TensorSpec }>({
  name: "input",
  inputs: [],
  infer: (_inputs, { spec }) => ({ value: spec }),
  reference(_inputs, { name }) {
    throw new GraphError(`input "${name}" has no value`);
  },
  vjp: { reason: "it is an input; its gradient is what valueAndGrad returns" },
});

type Traced<I extends GraphInputs> = { readonly [N in keyof I]: Tensor<KindOfSpec<I[N]>> };
type Result = AnyTensor | { readonly [name: string]: AnyTensor };
type OutputsOf<R extends Result> = R extends AnyTensor ? { readonly value: R } : R;

/** A static program. Immutable; passes return new graphs. */
export class Graph<I extends GraphInputs = GraphInputs, O extends GraphOutputs = GraphOutputs> {
  /** Specs of the inputs in order. */
  readonly inputs: I;
  /** Specs of the outputs in order. */
  readonly outputs: O;
  /** The inputs as values, which nodes read. */
  readonly inputTensors: { readonly [name: string]: AnyTensor };
  /** The values that are given out. */
  readonly outputTensors: { readonly [name: string]: AnyTensor };
  /** Every node that an output needs, inputs left out, each after the nodes it reads. */
  readonly nodes: readonly Node[];

  /**
   * @param order nodes in the order in which they are to stand, each after the nodes it reads; those that are not
   *   listed follow in the order of their creation
   * @throws GraphError where an output needs an input of another trace
   */
  constructor(
    inputTensors: { readonly [N in keyof I]: AnyTensor },
    outputTensors: { readonly [N in keyof O]: AnyTensor },
    order: readonly Node[] = [],
  ) {
    const specs = (tensors: { readonly [name: string]: AnyTensor }) =>
      Object.fromEntries(Object.entries(tensors).map(([name, { dtype, shape }]) => [name, { dtype, shape }]));
    this.inputTensors = inputTensors;
    this.outputTensors = outputTensors;
    this.inputs = specs(inputTensors) as unknown as I;
    this.outputs = specs(outputTensors) as unknown as O;
    this.nodes = reachable(Object.values(inputTensors), Object.values(outputTensors), order);
  }

  /** Names of the dims that are not bound. */
  get symbols(): ReadonlySet<string> {
    const names = new Set<string>();
    for (const { shape } of Object.values(this.inputs)) {
      for (const size of shape) for (const symbol of size.symbols) names.add(symbol);
    }
    return names;
  }

  /**
   * The graph with symbols replaced by sizes. Symbols that are not named stay.
   * @throws GraphError for a name that no input's shape has; ShapeError where the sizes do not fit
   */
  bind(symbols: Readonly<Record<string, number>>): Graph<I, O> {
    const known = this.symbols;
    for (const name of Object.keys(symbols)) {
      if (!known.has(name)) {
        throw new GraphError(`bind: no dim is named "${name}"; this graph has ${[...known].join(", ") || "none"}`);
      }
    }
    return rewrite(
      this,
      (node, inputs) => applyOp(node.op, inputs, bindAttributes(node.attributes, symbols), node.tag),
      {
        mapInput: (spec) => ({ dtype: spec.dtype, shape: spec.shape.map((size) => size.bind(symbols)) }),
      },
    );
  }

  /** The graph as text, a line for each node with dtype and shape. */
  toString(): string {
    return printGraph(this);
  }
}

function reachable(
  inputs: readonly AnyTensor[],
  outputs: readonly AnyTensor[],
  order: readonly Node[],
): readonly Node[] {
  const own = new Set(inputs.map((tensor) => tensor.node));
  const seen = new Set<Node>();
  const pending = outputs.map((tensor) => tensor.node);
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (seen.has(node) || own.has(node)) continue;
    if (node.op.name === inputOp.name) {
      throw new GraphError(
        `input "${node.attributes.name}" belongs to another trace; pass it in as an input of this graph`,
      );
    }
    seen.add(node);
    for (const tensor of Object.values(node.inputs)) pending.push(tensor.node);
  }
  const ordered = order.filter((node) => seen.delete(node));
  return [...ordered, ...[...seen].sort((a, b) => a.id - b.id)];
}

/** A new input of a graph under construction, [...] of the spec's shape. @throws ShapeError for a negative size */
export function inputTensor(name: string, spec: TensorSpec): AnyTensor {
  return apply(inputOp, {}, { name, spec }).value;
}

/**
 * Runs a function once on symbolic tensors and records what it does.
 * A single tensor as result becomes the output `value`.
 * @throws ShapeError, DTypeError at the line that is wrong; GraphError where the function returns no tensor, or one of
 *   another trace
 */
export function trace<const I extends GraphInputs, R extends Result>(
  inputs: I,
  program: (tensors: Traced<I>) => R,
): Graph<I, OutputsOf<R>> {
  const tensors = Object.fromEntries(Object.entries(inputs).map(([name, spec]) => [name, inputTensor(name, spec)]));
  const result = program(tensors as Traced<I>);
  const outputs: { readonly [name: string]: unknown } = isTensor(result) ? { value: result } : { ...result };
  if (Object.keys(outputs).length === 0) {
    throw new GraphError("trace: expected the function to return a tensor or a record of tensors, got none");
  }
  for (const [name, tensor] of Object.entries(outputs)) {
    if (!isTensor(tensor)) throw new GraphError(`trace: output "${name}" is not a tensor`);
  }
  const graph = new Graph<I, OutputsOf<R>>(
    tensors as { [N in keyof I]: AnyTensor },
    outputs as unknown as { readonly [N in keyof OutputsOf<R>]: AnyTensor },
  );
  verify(graph);
  return graph;
}

/** Names the new tensors that take an old node's place. */
export type Rewrite = (node: Node, inputs: { readonly [name: string]: AnyTensor }) => OpOutputs;

/**
 * Rebuilds a graph node by node. The rule gets each node with its inputs already rebuilt and returns its outputs,
 * by name; it may return any tensors of equal dtype and shape.
 * @throws GraphError where an output that is needed is left out, or is of another dtype or shape
 */
export function rewrite<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  rule: Rewrite,
  options: {
    /** The spec that an input gets in place of its own; default its own. */
    readonly mapInput?: (spec: TensorSpec, name: string) => TensorSpec;
  } = {},
): Graph<I, O> {
  const replaced = new Map<AnyTensor, AnyTensor>();
  const inputs: Record<string, AnyTensor> = {};
  for (const [name, tensor] of Object.entries(graph.inputTensors)) {
    inputs[name] = options.mapInput ? inputTensor(name, options.mapInput(tensor, name)) : tensor;
    replaced.set(tensor, inputs[name]);
  }
  const lookup = (tensor: AnyTensor): AnyTensor => {
    const found = replaced.get(tensor);
    if (found === undefined) throw new GraphError(`rewrite: ${specText(tensor)} of ${tensor.node.op.name} is missing`);
    return found;
  };
  // New nodes stand where the old ones stood, whatever was built again and whatever was not.
  const order = new Set(Object.values(inputs).map(({ node }) => node));
  for (const node of graph.nodes) {
    const mapped = Object.fromEntries(Object.entries(node.inputs).map(([name, tensor]) => [name, lookup(tensor)]));
    const outputs = rule(node, mapped);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const output = outputs[name];
      if (output === undefined) continue;
      if (!options.mapInput && (output.dtype !== tensor.dtype || !sameShape(output.shape, tensor.shape))) {
        throw new GraphError(
          `rewrite: ${node.op.name} gives ${specText(tensor)}, what takes its place ${specText(output)}`,
        );
      }
      replaced.set(tensor, output);
      placeNode(output.node, order);
    }
  }
  const outputs = Object.fromEntries(
    Object.entries(graph.outputTensors).map(([name, tensor]) => [name, lookup(tensor)]),
  );
  return new Graph(inputs as { [N in keyof I]: AnyTensor }, outputs as { [N in keyof O]: AnyTensor }, [...order]);
}

/** Adds a node to an order of nodes, behind all that it reads; what of that is not there yet is added too. */
export function placeNode(node: Node, order: Set<Node>): void {
  const added = new Set<Node>();
  const pending = [node];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (order.has(next) || added.has(next)) continue;
    added.add(next);
    for (const tensor of Object.values(next.inputs)) pending.push(tensor.node);
  }
  for (const next of [...added].sort((a, b) => a.id - b.id)) order.add(next);
}

/** A node again, unless nothing about it changed. */
export function rebuild(node: Node, inputs: { readonly [name: string]: AnyTensor }): OpOutputs {
  const same = Object.entries(node.inputs).every(([name, tensor]) => inputs[name] === tensor);
  return same ? node.outputs : applyOp(node.op, inputs, node.attributes, node.tag);
}
