// Which results are kept in memory, and which are computed where they are read.

import { type AnyTensor, constantOp, type Graph, type Node, reshapeOp } from "@sisa/core";
import { countOf } from "./element-type.ts";
import type { Lowering } from "./lowering.ts";

/** Longest expression that is made of one kernel's operations. */
const longest = 96;

/** What a tensor is a view of: reshapes change nothing in memory. */
export function originOf(tensor: AnyTensor): AnyTensor {
  let current = tensor;
  while (current.node.op === reshapeOp) {
    const { x } = current.node.inputs;
    if (x === undefined) break;
    current = x;
  }
  return current;
}

export function isLiteral({ node, shape, dtype }: AnyTensor): boolean {
  return node.op === constantOp && countOf({ dtype, shape }) === 1;
}

/** What one kernel reads, and how much it computes. */
interface Group {
  readonly leaves: Set<AnyTensor>;
  operations: number;
}

export interface FuseOptions {
  readonly loweringOf: (node: Node) => Lowering;
  /** Arrays that one kernel can read. */
  readonly maximumReads: number;
  /** Whether a tensor is the next value of state, which may be written over the old one. */
  readonly isState: (tensor: AnyTensor) => boolean;
}

export interface Fusion {
  /** Origins of the tensors that are kept in memory: outputs, results and operands of kernels, and what many read. */
  readonly kept: ReadonlySet<AnyTensor>;
  /** Kernels that compute an expression of their result before they store it: the expression's node to the kernel's. */
  readonly finished: ReadonlyMap<Node, Node>;
}

export function fuse(graph: Graph, { loweringOf, maximumReads, isState }: FuseOptions): Fusion {
  const kept = new Set<AnyTensor>(Object.values(graph.outputTensors).map(originOf));
  const readers = new Map<AnyTensor, Node[]>();
  const groups = new Map<Node, Group>();
  /** The kernels that a node is part of. */
  const homes = new Map<Node, ReadonlySet<Node>>();

  const startGroup = (node: Node) => {
    const leaves = Object.values(node.inputs).map(originOf);
    groups.set(node, { leaves: new Set(leaves.filter((leaf) => !isLiteral(leaf))), operations: 1 });
    homes.set(node, new Set([node]));
  };
  const joins = (origin: AnyTensor, node: Node, targets: ReadonlySet<Node>): boolean => {
    const own = Object.values(node.inputs)
      .map(originOf)
      .filter((leaf) => !isLiteral(leaf));
    const costly = isCostly(loweringOf(node));
    if (targets.size > 1 && (costly || new Set(own).size > 1)) return false;
    for (const target of targets) {
      const group = groups.get(target);
      if (group === undefined) return false;
      const leaves = new Set([...group.leaves, ...own]);
      leaves.delete(origin);
      if (leaves.size > maximumReads || group.operations >= longest) return false;
      if (costly && domainOf(target, loweringOf) > countOf(origin)) return false;
    }
    return true;
  };

  const finished = new Map<Node, Node>();
  /** The expression that alone reads a kernel's result, element by element. */
  const expressionOf = (origin: AnyTensor): Node | undefined => {
    const targets = new Set((readers.get(origin) ?? []).flatMap((reader) => [...(homes.get(reader) ?? [])]));
    const [target] = targets;
    const result = target && (Object.values(target.outputs)[0] as AnyTensor);
    if (targets.size !== 1 || !target || !result || finished.has(target) || isState(result)) return undefined;
    if (result.dtype === "bool" || result.dtype === "int32") return undefined;
    const size = countOf(origin);
    const isElementwise = (node: Node): boolean => {
      const output = Object.values(node.outputs)[0] as AnyTensor;
      if (loweringOf(node).kind !== "pointwise" || countOf(output) !== size) return false;
      return node === target || (readers.get(output) ?? []).every(isElementwise);
    };
    return (readers.get(origin) ?? []).every(isElementwise) ? target : undefined;
  };

  for (const node of graph.nodes.toReversed()) {
    if (node.op === reshapeOp || node.op === constantOp) continue;
    const lowering = loweringOf(node);
    const results = Object.values(node.outputs);
    const [origin] = results;
    if (lowering.kind === "kernel" || origin === undefined) {
      const expression =
        lowering.kind === "kernel" && lowering.finishes && origin && !kept.has(origin) && expressionOf(origin);
      if (expression) finished.set(expression, node);
      else for (const result of results) kept.add(result);
    } else {
      const targets = new Set((readers.get(origin) ?? []).flatMap((reader) => [...(homes.get(reader) ?? [])]));
      if (!kept.has(origin) && joins(origin, node, targets)) {
        for (const target of targets) {
          const group = groups.get(target) as Group;
          group.leaves.delete(origin);
          for (const input of Object.values(node.inputs)) {
            const leaf = originOf(input);
            if (!isLiteral(leaf)) group.leaves.add(leaf);
          }
          group.operations += 1;
        }
        homes.set(node, targets);
      } else {
        kept.add(origin);
      }
    }
    if (!homes.has(node)) startGroup(node);
    for (const [name, input] of Object.entries(node.inputs)) {
      const leaf = originOf(input);
      if (lowering.kind === "kernel" && lowering.absorbs !== name) kept.add(leaf);
      readers.set(leaf, [...(readers.get(leaf) ?? []), node]);
    }
  }
  return { kept, finished };
}

function isCostly(lowering: Lowering): boolean {
  return lowering.kind === "pointwise" && lowering.costly;
}

/** Elements that a kernel computes its expression for. */
function domainOf(node: Node, loweringOf: (node: Node) => Lowering): number {
  const lowering = loweringOf(node);
  const absorbed = lowering.kind === "kernel" && lowering.absorbs ? node.inputs[lowering.absorbs] : undefined;
  return countOf(absorbed ?? (Object.values(node.outputs)[0] as AnyTensor));
}
