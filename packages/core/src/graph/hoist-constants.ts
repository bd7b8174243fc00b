// What depends on constants alone is computed once: weights put together, or in another width.

import { Graph, inputTensor, rebuild, rewrite } from "./graph.ts";
import { pickOutputs } from "./passes.ts";
import type { AnyTensor, Node } from "./tensor.ts";

/** A graph in two: what is computed once, and what is computed in every run. */
export interface Hoisted {
  /** Gives, from constants, what `main` takes as inputs of the same names; undefined where there is nothing to compute. */
  readonly once: Graph | undefined;
  /** Gives the outputs. Constants that nothing reads any more are no inputs of it. */
  readonly main: Graph;
}

/**
 * Takes what depends on constants alone out of a graph.
 *
 * @param constants names of inputs that never change
 * @param isFree    whether a node's result is not worth memory of its own where this input of that reader takes it (no
 *                  reader: an output of the graph does); what it is made of is looked at in its place
 */
export function hoistConstants(
  graph: Graph,
  constants: readonly string[],
  isFree: (node: Node, reader?: Node, input?: string) => boolean,
): Hoisted {
  const given = new Set<AnyTensor>(constants.flatMap((name) => graph.inputTensors[name] ?? []));
  const fixed = new Set(given);
  /** What depends on no input at all, such as zeros. */
  const literal = new Set<AnyTensor>();
  for (const node of graph.nodes) {
    const inputs = Object.values(node.inputs);
    const isLiteral = inputs.every((tensor) => literal.has(tensor));
    if (!isLiteral && !inputs.every((tensor) => literal.has(tensor) || fixed.has(tensor))) continue;
    for (const tensor of Object.values(node.outputs)) (isLiteral ? literal : fixed).add(tensor);
  }
  /** What is computed for a tensor that is read where things change: itself, or what it is made of. */
  const computed = (tensor: AnyTensor, reader?: Node, input?: string): readonly AnyTensor[] => {
    if (!fixed.has(tensor) || given.has(tensor)) return [];
    if (!isFree(tensor.node, reader, input)) return [tensor];
    return Object.values(tensor.node.inputs).flatMap((operand) => computed(operand, reader, input));
  };
  const changing = graph.nodes.filter(({ outputs }) => !Object.values(outputs).some((tensor) => fixed.has(tensor)));
  const read = changing.flatMap((node) =>
    Object.entries(node.inputs).flatMap(([name, tensor]) => computed(tensor, node, name)),
  );
  const tensors = new Set([...read, ...Object.values(graph.outputTensors).flatMap((tensor) => computed(tensor))]);
  if (tensors.size === 0) return { once: undefined, main: graph };
  const named = [...tensors].map((tensor, index) => {
    const name = `constant.${index}`;
    return { name, tensor, input: inputTensor(name, tensor) };
  });
  const results = Object.fromEntries(named.map(({ name, tensor }) => [name, tensor]));
  const added = Object.fromEntries(named.map(({ name, input }) => [name, input]));
  const inputOf = new Map(named.map(({ tensor, input }) => [tensor, input]));
  const open = new Graph({ ...graph.inputTensors, ...added }, graph.outputTensors, graph.nodes);
  const main = rewrite(open, (node, operands) => {
    const outputs = Object.entries(rebuild(node, operands));
    return Object.fromEntries(
      outputs.map(([name, output]) => [name, inputOf.get(node.outputs[name] as AnyTensor) ?? output]),
    );
  });
  const needed = withoutUnread(main, [...constants, ...Object.keys(added)]);
  const all = new Graph(graph.inputTensors, results, graph.nodes);
  const names = Object.keys(results).filter((name) => needed.inputs[name]);
  return { once: pickOutputs(all, names), main: needed };
}

/** The graph without those of the named inputs that nothing reads any more. */
function withoutUnread(graph: Graph, names: readonly string[]): Graph {
  const read = new Set<AnyTensor>([
    ...graph.nodes.flatMap(({ inputs }) => Object.values(inputs)),
    ...Object.values(graph.outputTensors),
  ]);
  const kept = Object.entries(graph.inputTensors).filter(([name, tensor]) => !names.includes(name) || read.has(tensor));
  return new Graph(Object.fromEntries(kept), graph.outputTensors, graph.nodes);
}
