// The order in which nodes are computed: those that one kernel can do together come next to each other.

import { type AnyTensor, constantOp, Graph, inputOp, type Node } from "@sisa/core";
import { originOf } from "./fuse.ts";
import type { KernelLowering, Lowering } from "./lowering.ts";

export interface Schedule {
  readonly graph: Graph;
  /** By the first of its nodes, each group that is built at once. Groups follow each other without gaps. */
  readonly groups: ReadonlyMap<Node, readonly Node[]>;
}

/**
 * Nodes of one key wait until something needs the result of one of them; then all that are ready by then are computed,
 * also those that would come later.
 */
export function schedule(graph: Graph, loweringOf: (node: Node) => Lowering | undefined): Schedule {
  const nodes: Node[] = [];
  const groups = new Map<Node, readonly Node[]>();
  const done = new Set<Node>();
  const waiting = new Map<string, Node[]>();
  const keys = keysOf(graph, loweringOf);
  const producers = (node: Node) => Object.values(node.inputs).map((tensor) => originOf(tensor).node);
  const isReady = (node: Node) => producers(node).every((from) => done.has(from) || isGiven(from));

  const flush = (key: string) => {
    const members = waiting.get(key) ?? [];
    waiting.delete(key);
    for (const node of graph.nodes) {
      if (keys.get(node) !== key || done.has(node) || members.includes(node) || !isReady(node)) continue;
      if (!members.some((other) => collide(node, other, loweringOf))) members.push(node);
    }
    for (const node of members) {
      done.add(node);
      nodes.push(node);
    }
    if (members[0]) groups.set(members[0], members);
  };

  for (const node of graph.nodes) {
    if (done.has(node)) continue;
    for (const from of producers(node)) {
      const key = keys.get(from);
      if (key !== undefined && waiting.get(key)?.includes(from)) flush(key);
    }
    const key = keys.get(node);
    if (key === undefined) {
      done.add(node);
      nodes.push(node);
      continue;
    }
    if (waiting.get(key)?.some((other) => collide(node, other, loweringOf))) flush(key);
    if (!done.has(node)) waiting.set(key, [...(waiting.get(key) ?? []), node]);
  }
  for (const key of [...waiting.keys()]) flush(key);
  return { graph: new Graph(graph.inputTensors, graph.outputTensors, nodes), groups };
}

const isGiven = ({ op }: Node) => op === inputOp || op === constantOp;

/** A text for each key; objects in it stand for themselves. */
function keysOf(graph: Graph, loweringOf: (node: Node) => Lowering | undefined): ReadonlyMap<Node, string> {
  const numbers = new Map<unknown, number>();
  const numberOf = (part: unknown) => {
    if (typeof part !== "object") return String(part);
    const number = numbers.get(part) ?? numbers.size;
    numbers.set(part, number);
    return `#${number}`;
  };
  const keys = new Map<Node, string>();
  for (const node of graph.nodes) {
    const lowering = isGiven(node) ? undefined : loweringOf(node);
    const key = lowering?.kind === "kernel" ? lowering.joint?.key(node) : undefined;
    if (key) keys.set(node, [node.op.name, ...key.map(numberOf)].join());
  }
  return keys;
}

/** Whether one of the two may overwrite what the other reads. */
function collide(a: Node, b: Node, loweringOf: (node: Node) => Lowering | undefined): boolean {
  const written = (node: Node) => {
    const names = Object.values((loweringOf(node) as KernelLowering).overwrites ?? {});
    return names.flatMap((name) => node.inputs[name] ?? []).map(originOf);
  };
  const read = (node: Node): readonly AnyTensor[] => Object.values(node.inputs).map(originOf);
  const meet = (some: readonly AnyTensor[], others: readonly AnyTensor[]) =>
    some.some((tensor) => others.includes(tensor));
  return meet(written(a), read(b)) || meet(written(b), read(a));
}
