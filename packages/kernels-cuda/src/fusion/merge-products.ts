// Products that share an operand become one: y_i = x W_i^T of one x, forward; the sum over i of dy_i W_i; and the weight
// gradients dy_i^T x. Weights lie below each other and results beside each other; each stays a tensor of its own.

import {
  type AnyTensor,
  add,
  addOp,
  castOp,
  concat,
  type Graph,
  inputOp,
  matmul,
  matmulOp,
  type Node,
  pad,
  padOp,
  reshape,
  reshapeOp,
  sizesOf,
  slice,
  sliceOp,
  type Tensor,
} from "@sisa/core";
import { areIndependent, type Lookup, once, readersOf, replaceTensors } from "./replace.ts";

type Replacement = (lookup: Lookup) => AnyTensor;

/** Below this many rows, putting the weights together costs more than it saves. */
const leastRows = 4096;

/** @param options.leastRows rows of x from which products are merged */
export function mergeProducts(graph: Graph, options: { readonly leastRows?: number } = {}): Graph {
  return new Merger(graph, options.leastRows ?? leastRows).merge();
}

/** Where a weight, or the gradient of what it gave, stands among those that are merged. */
interface Member {
  /** The x of the group. */
  readonly group: AnyTensor;
  readonly index: number;
}

class Merger {
  readonly #graph: Graph;
  readonly #leastRows: number;
  readonly #readers: ReturnType<typeof readersOf>;
  readonly #replacements = new Map<AnyTensor, Replacement>();
  readonly #weights = new Map<AnyTensor, Member>();
  readonly #gradients = new Map<AnyTensor, Member>();

  constructor(graph: Graph, least: number) {
    this.#graph = graph;
    this.#leastRows = least;
    this.#readers = readersOf(graph);
  }

  merge(): Graph {
    this.#mergeForward();
    this.#mergeInputGradients();
    this.#mergeWeightGradients();
    return replaceTensors(this.#graph, this.#replacements);
  }

  #mergeForward(): void {
    const groups = groupBy(this.#graph.nodes.filter(isProjection), ({ inputs }) => inputs.a);
    for (const [x, nodes] of groups) {
      if (!x || nodes.length < 2 || rowsIn(x) < this.#leastRows || !areIndependent(this.#graph, new Set(nodes)))
        continue;
      // Results of one dtype come from one product; all weights lie in one block, for the gradient of x.
      const narrowFirst = nodes.toSorted((a, b) => Number(isWide(a)) - Number(isWide(b)));
      const weights = narrowFirst.map(({ inputs }) => inputs.b as AnyTensor);
      if (new Set(weights).size < weights.length) continue;
      weights.forEach((weight, index) => {
        this.#weights.set(weight, { group: x, index });
      });
      const all = once((lookup) => together(weights.map(lookup), 0));
      let start = 0;
      const width = narrowFirst.reduce((sum, node) => sum + widthOf(node), 0);
      for (const [, members] of groupBy(narrowFirst, isWide)) {
        const sizes = members.map(widthOf);
        const [first, total] = [start, sizes.reduce((a, b) => a + b, 0)];
        // The last product takes the zeros behind the weights along: it would be slow without them.
        const end = first + total === width ? width + missingWidth(width) : first + total;
        const { dtype } = members[0]?.outputs.value ?? x;
        const product = once((lookup) => {
          const rows = slice(all(lookup) as Tensor, { axis: 0, start: first, end });
          return matmul(lookup(x) as Tensor, rows, { transposeB: true, dtype: dtype as "float32" });
        });
        this.#replaceParts(members, product, -1);
        start += total;
      }
    }
  }

  /** Each member's result is its part of a product, along an axis. */
  #replaceParts(members: readonly Node[], product: Replacement, axis: number): void {
    let start = 0;
    for (const member of members) {
      const { value } = member.outputs;
      const size = value ? (sizesOf(value.shape).at(axis) ?? 0) : 0;
      const [from, to] = [start, start + size];
      if (value)
        this.#replacements.set(value, (lookup) => slice(product(lookup) as Tensor, { axis, start: from, end: to }));
      start = to;
    }
  }

  #mergeInputGradients(): void {
    const absorbed = new Set<Node>();
    for (const node of this.#graph.nodes.toReversed()) {
      if (node.op !== addOp || absorbed.has(node)) continue;
      const leaves = this.#leavesOf(node, absorbed);
      const groups = groupBy(leaves, (leaf) => this.#groupOfGradient(leaf));
      const isMerged = (group: AnyTensor | undefined) => group !== undefined && (groups.get(group)?.length ?? 0) > 1;
      const others = leaves.filter((leaf) => !isMerged(this.#groupOfGradient(leaf)));
      const merged: Replacement[] = others.map((leaf) => (lookup) => lookup(leaf));
      for (const [group, members] of groups) {
        if (group === undefined || !isMerged(group)) continue;
        const indexOf = ({ node: { inputs } }: AnyTensor) => this.#weights.get(inputs.b as AnyTensor)?.index ?? 0;
        const sorted = members.toSorted((a, b) => indexOf(a) - indexOf(b));
        const gradients = sorted.map((leaf) => leaf.node.inputs.a as AnyTensor);
        const weights = sorted.map((leaf) => leaf.node.inputs.b as AnyTensor);
        gradients.forEach((gradient, index) => {
          this.#gradients.set(gradient, { group, index });
        });
        merged.push((lookup) => {
          return matmul(together(gradients.map(lookup), -1), together(weights.map(lookup), 0));
        });
      }
      const { value } = node.outputs;
      if (!value || merged.length === leaves.length) continue;
      const sum = (lookup: Lookup) => merged.map((term) => term(lookup) as Tensor).reduce((a, b) => add(a, b));
      this.#replacements.set(value, sum);
    }
  }

  /** The terms of a sum of equal tensors, through sums that nothing else reads. */
  #leavesOf(node: Node, absorbed: Set<Node>): AnyTensor[] {
    return Object.values(node.inputs).flatMap((tensor) => {
      const { value } = node.outputs;
      const alike = tensor.dtype === value?.dtype && sizesOf(tensor.shape).join() === sizesOf(value.shape).join();
      if (tensor.node.op !== addOp || !alike || this.#readers.get(tensor)?.length !== 1) return [tensor];
      absorbed.add(tensor.node);
      return this.#leavesOf(tensor.node, absorbed);
    });
  }

  /** The x whose gradient a term is a part of, where it is a product with one of the merged weights. */
  #groupOfGradient(tensor: AnyTensor): AnyTensor | undefined {
    const { op, inputs, attributes } = tensor.node;
    const { a, b } = inputs;
    if (op !== matmulOp || !a || !b || attributes.transposeA || attributes.transposeB) return undefined;
    if (tensor.dtype !== a.dtype || this.#readers.get(tensor)?.length !== 1) return undefined;
    return this.#weights.get(b)?.group;
  }

  #mergeWeightGradients(): void {
    const candidates = this.#graph.nodes.filter(({ op, inputs, attributes }) => {
      const flat = op === matmulOp && attributes.transposeA && !attributes.transposeB && inputs.a?.shape.length === 2;
      return flat && this.#gradients.has(unflattened(inputs.a as AnyTensor));
    });
    const keyOf = ({ inputs, outputs }: Node) => {
      const member = this.#gradients.get(unflattened(inputs.a as AnyTensor));
      return `${inputs.b?.node.id} ${inputs.b?.output} ${outputs.value?.dtype} ${member?.group.node.id}`;
    };
    for (const [, nodes] of groupBy(candidates, keyOf)) {
      if (nodes.length < 2 || !areIndependent(this.#graph, new Set(nodes))) continue;
      const indexOf = ({ inputs }: Node) => this.#gradients.get(unflattened(inputs.a as AnyTensor))?.index ?? 0;
      const sorted = nodes.toSorted((a, b) => indexOf(a) - indexOf(b));
      const gradients = sorted.map(({ inputs }) => unflattened(inputs.a as AnyTensor));
      const x = sorted[0]?.inputs.b;
      const dtype = sorted[0]?.outputs.value?.dtype;
      if (!x) continue;
      const product = once((lookup) => {
        const beside = together(gradients.map(lookup), -1);
        const width = sizesOf(beside.shape).at(-1) ?? 0;
        const flat = reshape(beside, [rowsIn(beside), width]);
        return matmul(flat, lookup(x) as Tensor, { transposeA: true, dtype: dtype as "float32" });
      });
      this.#replaceParts(sorted, product, 0);
    }
  }
}

/** Widths that products are not slow with. */
const [evenWidth, slowUnless] = [64, 8];

/** Zeros behind a width that would make products slow. */
function missingWidth(width: number): number {
  return width % slowUnless === 0 ? 0 : Math.ceil(width / evenWidth) * evenWidth - width;
}

/** Tensors one after another along an axis, with zeros at the end where their width would make products slow. */
function together(parts: readonly AnyTensor[], axis: 0 | -1): Tensor {
  const whole = concat(parts as readonly Tensor[], { axis });
  return pad(whole, { axis, after: missingWidth(sizesOf(whole.shape).at(axis) ?? 0) });
}

/** x W^T for a weight that was made from inputs of the graph alone. */
function isProjection({ op, inputs, attributes }: Node): boolean {
  const { a, b } = inputs;
  if (op !== matmulOp || !a || !b || b.shape.length !== 2 || a.shape.length < 2) return false;
  return attributes.transposeB === true && !attributes.transposeA && isWeight(b);
}

function isWeight({ node }: AnyTensor): boolean {
  if (node.op === inputOp) return true;
  const moves = [castOp, padOp, sliceOp, reshapeOp].some((op) => op === node.op);
  return moves && Object.values(node.inputs).every(isWeight);
}

function isWide({ inputs, outputs }: Node): boolean {
  return outputs.value?.dtype !== inputs.a?.dtype;
}

function widthOf({ outputs }: Node): number {
  return outputs.value ? (sizesOf(outputs.value.shape).at(-1) ?? 0) : 0;
}

function rowsIn({ shape }: AnyTensor): number {
  return sizesOf(shape.slice(0, -1)).reduce((a, b) => a * b, 1);
}

/** What was flattened to rows, in its own shape. */
function unflattened(tensor: AnyTensor): AnyTensor {
  const { x } = tensor.node.inputs;
  const isFlat = tensor.node.op === reshapeOp && x && x.shape.length > 1;
  return isFlat && sizesOf(x.shape).at(-1) === sizesOf(tensor.shape).at(-1) ? x : tensor;
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
