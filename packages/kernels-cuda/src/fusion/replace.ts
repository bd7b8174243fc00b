// Rebuilding a graph in which several nodes give way to one that does the work of all of them.

import { type AnyTensor, Graph, GraphError, type Node, placeNode, rebuild } from "@sisa/core";

/** The tensor that stands for one of the old graph. */
export type Lookup = (tensor: AnyTensor) => AnyTensor;

/** What takes the place of tensors; each is made when it is first needed. */
export type Replacements = ReadonlyMap<AnyTensor, (lookup: Lookup) => AnyTensor>;

/** Something that is made when it is first asked for, and then again and again the same. */
export function once<T>(make: (lookup: Lookup) => T): (lookup: Lookup) => T {
  let made: { readonly value: T } | undefined;
  return (lookup) => {
    made ??= { value: make(lookup) };
    return made.value;
  };
}

/** Inputs of a new node from those of an old one. */
export function mapped(inputs: { readonly [name: string]: AnyTensor | undefined }, lookup: Lookup) {
  const present = Object.entries(inputs).flatMap(([name, tensor]) => (tensor ? [[name, lookup(tensor)] as const] : []));
  return Object.fromEntries(present);
}

/** The graph with some tensors made otherwise. Replacements may read what comes later, if it does not depend on them. */
export function replaceTensors(graph: Graph, replacements: Replacements): Graph {
  if (replacements.size === 0) return graph;
  const made = new Map<AnyTensor, AnyTensor>();
  const order = new Set<Node>();
  for (const tensor of Object.values(graph.inputTensors)) {
    made.set(tensor, tensor);
    order.add(tensor.node);
  }
  const lookup: Lookup = (tensor) => {
    const known = made.get(tensor);
    if (known) return known;
    const replacement = replacements.get(tensor);
    const { node } = tensor;
    const inputs = () => Object.entries(node.inputs).map(([name, input]) => [name, lookup(input)] as const);
    const found = replacement ? replacement(lookup) : rebuild(node, Object.fromEntries(inputs()))[tensor.output];
    if (!found) throw new GraphError(`${node.op.name}: its output "${tensor.output}" was lost`);
    if (!replacement)
      for (const [name, output] of Object.entries(node.outputs)) remember(output, found.node.outputs[name]);
    made.set(tensor, found);
    return found;
  };
  const remember = (old: AnyTensor, now: AnyTensor | undefined) => {
    if (now && !replacements.has(old)) made.set(old, now);
  };
  // New nodes stand where the first of the old ones stood.
  for (const node of graph.nodes) {
    for (const tensor of Object.values(node.outputs)) placeNode(lookup(tensor).node, order);
  }
  const outputs = Object.entries(graph.outputTensors).map(([name, tensor]) => [name, lookup(tensor)] as const);
  return new Graph(graph.inputTensors, Object.fromEntries(outputs), [...order]);
}

/** Who reads each tensor; `undefined` stands for the outputs of the graph. */
export function readersOf(graph: Graph): ReadonlyMap<AnyTensor, readonly (Node | undefined)[]> {
  const readers = new Map<AnyTensor, (Node | undefined)[]>();
  const read = (tensor: AnyTensor, node?: Node) => {
    readers.set(tensor, [...(readers.get(tensor) ?? []), node]);
  };
  for (const node of graph.nodes) for (const tensor of Object.values(node.inputs)) read(tensor, node);
  for (const tensor of Object.values(graph.outputTensors)) read(tensor);
  return readers;
}

/** Whether no node reads, on whatever way, what another of them gives. */
export function areIndependent(graph: Graph, nodes: ReadonlySet<Node>): boolean {
  const after = new Set<AnyTensor>();
  for (const node of graph.nodes) {
    const isAfter = Object.values(node.inputs).some((tensor) => after.has(tensor));
    if (isAfter && nodes.has(node)) return false;
    if (isAfter || nodes.has(node)) for (const tensor of Object.values(node.outputs)) after.add(tensor);
  }
  return true;
}
