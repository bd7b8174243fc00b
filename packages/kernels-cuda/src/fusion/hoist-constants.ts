// What depends on constants alone is computed once: weights put together, or in another width.

import { type AnyTensor, Graph, inputTensor, type Node, pickOutputs } from "@sisa/core";
import { replaceTensors } from "./replace.ts";

export interface Hoisted {
  /** Gives, from constants, what `main` takes as inputs of the same names; undefined where there is nothing to compute. */
  readonly once: Graph | undefined;
  readonly main: Graph;
}

/**
 * @param constants names of inputs that never change
 * @param isAlias   nodes that cost nothing and stay where they are read
 */
export function hoistConstants(graph: Graph, constants: readonly string[], isAlias: (node: Node) => boolean): Hoisted {
  const fixed = new Set<AnyTensor>(constants.flatMap((name) => graph.inputTensors[name] ?? []));
  const given = new Set(fixed);
  /** What depends on no input at all, such as zeros. */
  const free = new Set<AnyTensor>();
  for (const node of graph.nodes) {
    const inputs = Object.values(node.inputs);
    const set = inputs.every((tensor) => free.has(tensor)) ? free : fixed;
    if (!inputs.every((tensor) => free.has(tensor) || fixed.has(tensor))) continue;
    for (const tensor of Object.values(node.outputs)) set.add(tensor);
  }
  /** What is computed for a tensor that is read where things change: itself, or what it is an alias of. */
  const computed = (tensor: AnyTensor): readonly AnyTensor[] => {
    if (!fixed.has(tensor) || given.has(tensor)) return [];
    return isAlias(tensor.node) ? Object.values(tensor.node.inputs).flatMap(computed) : [tensor];
  };
  const changing = graph.nodes.filter(({ outputs }) => !Object.values(outputs).some((tensor) => fixed.has(tensor)));
  const read = [...changing.flatMap(({ inputs }) => Object.values(inputs)), ...Object.values(graph.outputTensors)];
  const tensors = [...new Set(read.flatMap(computed))];
  if (tensors.length === 0) return { once: undefined, main: graph };
  const named = tensors.map((tensor, index) => [`constant.${index}`, tensor] as const);
  const inputs = new Map(named.map(([name, tensor]) => [tensor, inputTensor(name, tensor)] as const));
  const open = new Graph(
    {
      ...graph.inputTensors,
      ...Object.fromEntries(named.map(([name, tensor]) => [name, inputs.get(tensor) ?? tensor])),
    },
    graph.outputTensors,
    graph.nodes,
  );
  const main = replaceTensors(open, new Map([...inputs].map(([tensor, input]) => [tensor, () => input] as const)));
  const all = new Graph(graph.inputTensors, Object.fromEntries(named), graph.nodes);
  return { once: pickOutputs(all, Object.keys(all.outputs)), main: withoutUnread(main, constants) };
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
