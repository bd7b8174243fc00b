// Finding where a composite's composition stands in a graph, so that the composite can take its place.

import {
  type AnyTensor,
  type Attributes,
  applyOp,
  Dim,
  type Graph,
  type GraphInputs,
  inputOp,
  type Node,
  type Op,
  type OpOutputs,
  sameShape,
  simplify,
  type TensorSpec,
  trace,
} from "@sisa/core";
import { type Lookup, replaceTensors } from "./replace.ts";

/** A composite that may stand at a node: what it would take and give. */
export interface Candidate {
  readonly op: Op;
  readonly inputs: { readonly [name: string]: TensorSpec | undefined };
  readonly attributes: Attributes;
  /** Which of its outputs the node's is. */
  readonly output: string;
  /** Inputs that must be inputs of the graph, so that nothing in it has written to them before. */
  readonly given?: readonly string[];
}

/**
 * Puts composites in place of what computes the same, node for node. What of it is read elsewhere is computed there still.
 *
 * @param candidateAt what may stand at an output of a node; undefined where nothing may
 */
export function joinComposites(graph: Graph, candidateAt: (node: Node) => Candidate | undefined): Graph {
  const replacements = new Map<AnyTensor, (lookup: Lookup) => AnyTensor>();
  for (const node of graph.nodes) {
    const candidate = candidateAt(node);
    const root = node.outputs.value;
    if (!candidate || !root || replacements.has(root)) continue;
    const { op, attributes, given = [] } = candidate;
    const specs = Object.entries(candidate.inputs).filter(([, spec]) => spec !== undefined);
    const pattern = simplify(
      trace(Object.fromEntries(specs) as GraphInputs, (tensors) => op.compose?.(tensors, attributes) ?? {}),
    ) as unknown as Graph;
    const found = match(pattern, candidate.output, root, graph);
    if (!found || given.some((name) => found.inputs[name]?.node.op !== inputOp)) continue;
    let made: OpOutputs | undefined;
    for (const [name, tensor] of Object.entries(found.outputs)) {
      replacements.set(tensor, (lookup) => {
        const inputs = Object.entries(found.inputs).map(([input, operand]) => [input, lookup(operand)] as const);
        made ??= applyOp(op, Object.fromEntries(inputs), attributes, node.tag);
        return made[name] as AnyTensor;
      });
    }
  }
  return replaceTensors(graph, replacements);
}

type Named = { readonly [name: string]: AnyTensor };

/** Tensors of the graph that the inputs and outputs of a pattern are, where all of it stands there. */
function match(
  pattern: Graph,
  output: string,
  root: AnyTensor,
  graph: Graph,
): { inputs: Named; outputs: Named } | undefined {
  let known: ReadonlyMap<AnyTensor, AnyTensor> = new Map();
  const find = (part: AnyTensor, tensors: readonly AnyTensor[]): boolean => {
    if (known.has(part)) return true;
    return tensors.some((tensor) => {
      const extended = new Map(known);
      if (!unify(part, tensor, extended)) return false;
      known = extended;
      return true;
    });
  };
  const named = Object.entries(pattern.outputTensors);
  const isFound = named
    .toSorted(([a], [b]) => Number(b === output) - Number(a === output))
    .every(([name, part]) =>
      find(part, name === output ? [root] : graph.nodes.flatMap(({ outputs }) => outputs[part.output] ?? [])),
    );
  if (!isFound) return undefined;
  const standing = (parts: Named): Named =>
    Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, known.get(part) as AnyTensor]));
  return { inputs: standing(pattern.inputTensors), outputs: standing(pattern.outputTensors) };
}

function unify(part: AnyTensor, tensor: AnyTensor, known: Map<AnyTensor, AnyTensor>): boolean {
  const before = known.get(part);
  if (before) return before === tensor;
  if (part.dtype !== tensor.dtype || !sameShape(part.shape, tensor.shape)) return false;
  known.set(part, tensor);
  if (part.node.op === inputOp) return true;
  const [own, other] = [part.node, tensor.node];
  const names = Object.keys(own.inputs);
  return (
    own.op === other.op &&
    part.output === tensor.output &&
    names.length === Object.keys(other.inputs).length &&
    isSame(own.attributes, other.attributes) &&
    names.every((name) => {
      const [a, b] = [own.inputs[name], other.inputs[name]];
      return a !== undefined && b !== undefined && unify(a, b, known);
    })
  );
}

/** Equal attributes: numbers, words, sizes, and lists and records of them. */
function isSame(a: unknown, b: unknown): boolean {
  if (Dim.is(a) && Dim.is(b)) return a.equals(b);
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return Object.is(a, b);
  const [keys, others] = [Object.keys(a), Object.keys(b)];
  const at = (value: object, key: string) => (value as { readonly [key: string]: unknown })[key];
  return keys.length === others.length && keys.every((key) => isSame(at(a, key), at(b, key)));
}
