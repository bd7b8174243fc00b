// Optimizer steps of all parameters as one operation, with the narrow copies that are made of their results.

import { type AnyTensor, adamwOp, applyOp, castOp, type Graph, type Node, type OpOutputs } from "@sisa/core";
import { adamwManyOp, ownTensors, sharedScalars } from "./operations.ts";
import { areIndependent, type Lookup, readersOf, replaceTensors } from "./replace.ts";

export function joinOptimizers(graph: Graph): Graph {
  const readers = readersOf(graph);
  const replacements = new Map<AnyTensor, (lookup: Lookup) => AnyTensor>();
  const groups = new Map<string, Node[]>();
  for (const node of graph.nodes) {
    const isPlain = Object.entries(node.inputs).every(([name, { dtype }]) => name === "proceed" || dtype === "float32");
    if (node.op !== adamwOp || !isPlain) continue;
    const { beta1, beta2, epsilon } = node.attributes;
    const scalars = sharedScalars.map((name) => `${node.inputs[name]?.node.id}.${node.inputs[name]?.output}`);
    const key = [beta1, beta2, epsilon, ...scalars].join();
    groups.set(key, [...(groups.get(key) ?? []), node]);
  }
  for (const nodes of groups.values()) {
    const [first] = nodes;
    if (!first || nodes.length < 2 || !areIndependent(graph, new Set(nodes))) continue;
    const { weightDecay: _, ...attributes } = first.attributes;
    const weightDecays = nodes.map((node) => node.attributes.weightDecay);
    const copiesOf = ({ outputs: { parameter } }: Node) =>
      (parameter ? (readers.get(parameter) ?? []) : []).flatMap((reader) => {
        const copy = reader?.op === castOp ? reader.outputs.value : undefined;
        return copy?.dtype === "bfloat16" ? [copy] : [];
      });
    const copies = nodes.map(copiesOf);
    const narrow = copies.map((list) => list.length > 0);
    let made: OpOutputs | undefined;
    const together = (lookup: Lookup): OpOutputs => {
      if (made) return made;
      const own = nodes.flatMap(({ inputs }, index) =>
        ownTensors.map((name) => [`${index}.${name}`, lookup(inputs[name] as AnyTensor)] as const),
      );
      const shared = sharedScalars.map((name) => [name, lookup(first.inputs[name] as AnyTensor)] as const);
      made = applyOp(adamwManyOp, Object.fromEntries([...own, ...shared]), { ...attributes, weightDecays, narrow });
      return made;
    };
    nodes.forEach(({ outputs }, index) => {
      const result = (name: string) => (lookup: Lookup) => together(lookup)[`${index}.${name}`] as AnyTensor;
      for (const [name, tensor] of Object.entries(outputs)) replacements.set(tensor, result(name));
      for (const copy of copies[index] ?? []) replacements.set(copy, result("narrow"));
    });
  }
  return replaceTensors(graph, replacements);
}
