// The backward pass of attention and of SISA's states with what would follow each of them: rotations of gradients, sums of
// both gradients of decays, and casts. Decays from their projection in one operation, forward and backward.

import {
  type AnyTensor,
  addOp,
  applyOp,
  attentionBackwardOp,
  castOp,
  decayAttentionBackwardOp,
  type Graph,
  mulOp,
  type Node,
  negOp,
  type OpOutputs,
  reshape,
  reshapeOp,
  ropeOp,
  sigmoidOp,
  sizesOf,
  softplusOp,
  ssmPrepareBackwardOp,
  sumOp,
  type Tensor,
} from "@sisa/core";
import {
  attentionBackwardRotatedOp,
  decayAttentionBackwardJoinedOp,
  logDecayBackwardOp,
  logDecayOp,
  ssmPrepareBackwardNarrowOp,
} from "./operations.ts";
import { type Lookup, mapped, once, readersOf, replaceTensors } from "./replace.ts";

/** Threads of a block, among which the kernel divides the heads. */
const mostHeads = 256;

export function joinStates(graph: Graph): Graph {
  return new Joiner(graph).join();
}

class Joiner {
  readonly #graph: Graph;
  readonly #readers: ReturnType<typeof readersOf>;
  readonly #replacements = new Map<AnyTensor, (lookup: Lookup) => AnyTensor>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#readers = readersOf(graph);
  }

  join(): Graph {
    for (const node of this.#graph.nodes) {
      if (node.op === attentionBackwardOp) this.#joinAttention(node);
      if (node.op === decayAttentionBackwardOp) this.#joinDecayAttention(node);
      if (node.op === ssmPrepareBackwardOp) this.#joinPhase(node);
      if (node.op === negOp) this.#joinLogDecay(node);
      if (node.op === mulOp) this.#joinLogDecayBackward(node);
    }
    return replaceTensors(this.#graph, this.#replacements);
  }

  /** The one node that reads a tensor. */
  #readerOf(tensor: AnyTensor | undefined): Node | undefined {
    const readers = tensor ? (this.#readers.get(tensor) ?? []) : [];
    return readers.length === 1 ? readers[0] : undefined;
  }

  #joinAttention(node: Node): void {
    const rotations = this.#rotationsOf(node);
    if (!rotations || node.inputs.bias || this.#readers.has(node.outputs.scores as AnyTensor)) return;
    const { cos, sin } = rotations[0].inputs;
    const joined = once((lookup) => {
      return applyOp(
        attentionBackwardRotatedOp,
        mapped({ ...node.inputs, cos, sin }, lookup),
        node.attributes,
        node.tag,
      );
    });
    this.#replaceAll(joined, { q: rotations[0].outputs.value, k: rotations[1].outputs.value, v: node.outputs.v });
  }

  /** Where one g is summed from both gradients, and those by c and b go on to where the states were prepared. */
  #joinDecayAttention(node: Node): void {
    const { cRotated, bRotated, gQuery, gKey, v, lambda } = node.outputs;
    const [sum, other] = [this.#readerOf(gQuery), this.#readerOf(gKey)];
    const [prepare, same] = [this.#readerOf(cRotated), this.#readerOf(bRotated)];
    const isPrepare = prepare === same && prepare?.op === ssmPrepareBackwardOp;
    if (!sum || sum !== other || sum.op !== addOp || node.inputs.gQuery !== node.inputs.gKey || !isPrepare) return;
    if (prepare.inputs.cGradient !== cRotated || prepare.inputs.bGradient !== bRotated) return;
    if (cRotated?.dtype !== "bfloat16") return;
    const rotations = this.#rotationsOf(node);
    const { cos, sin } = rotations?.[0].inputs ?? {};
    const joined = once((lookup) => {
      const inputs = { ...node.inputs, ...(cos && sin ? { cos, sin } : {}) };
      return applyOp(decayAttentionBackwardJoinedOp, mapped(inputs, lookup), node.attributes, node.tag);
    });
    const [q, k] = rotations ? rotations.map(({ outputs }) => outputs.value) : [node.outputs.q, node.outputs.k];
    this.#replaceAll(joined, { q, k, v, cRotated, bRotated, g: sum.outputs.value, lambda });
  }

  /** The rotations of both gradients, by the same tables with a row for each position. */
  #rotationsOf({ outputs }: Node): readonly [Node, Node] | undefined {
    const [q, k] = [this.#readerOf(outputs.q), this.#readerOf(outputs.k)];
    if (q?.op !== ropeOp || k?.op !== ropeOp || q === k) return undefined;
    const { x, cos, sin } = q.inputs;
    if (x !== outputs.q || k.inputs.x !== outputs.k || cos !== k.inputs.cos || sin !== k.inputs.sin) return undefined;
    const [, T = 0, , D = 0] = sizesOf(x?.shape ?? []);
    const isTable = (tensor: AnyTensor | undefined) =>
      tensor?.dtype === "float32" && sizesOf(tensor.shape).join() === [T, 1, D / 2].join();
    return isTable(cos) && isTable(sin) ? [q, k] : undefined;
  }

  /** Where the gradient by the phase is only read to be rounded, perhaps in another shape. */
  #joinPhase(node: Node): void {
    const reader = this.#readerOf(node.outputs.phase);
    const last = reader?.op === reshapeOp ? this.#readerOf(reader.outputs.value) : reader;
    const value = last?.outputs.value;
    if (last?.op !== castOp || value?.dtype !== "bfloat16" || node.outputs.phase?.dtype !== "float32") return;
    const joined = once((lookup) =>
      applyOp(ssmPrepareBackwardNarrowOp, mapped(node.inputs, lookup), node.attributes, node.tag),
    );
    const { c, b, logDecay } = node.outputs;
    this.#replaceAll(joined, { c, b, logDecay });
    this.#replacements.set(value, (lookup) => reshape(joined(lookup).phase as Tensor, value.shape));
  }

  /** x and the bias of each head, where a tensor is x + bias. */
  #strengthOf(tensor: AnyTensor | undefined): { readonly x: AnyTensor; readonly bias: AnyTensor } | undefined {
    const { op, inputs } = tensor?.node ?? {};
    const { a: x, b: bias } = inputs ?? {};
    const wide = [x, bias].every((term) => term?.dtype === "float32");
    if (op !== addOp || !x || !bias || !wide || x.shape.length !== 3 || bias.shape.length !== 1) return undefined;
    const heads = sizesOf(x.shape)[2] ?? 0;
    return heads === sizesOf(bias.shape)[0] && heads <= mostHeads ? { x, bias } : undefined;
  }

  #joinLogDecay({ inputs, outputs: { value } }: Node): void {
    const softened = inputs.x;
    const strength = softened?.node.op === softplusOp ? this.#strengthOf(softened.node.inputs.x) : undefined;
    if (!value || !strength || !this.#readerOf(softened)) return;
    this.#replacements.set(value, (lookup) => applyOp(logDecayOp, mapped(strength, lookup), {}).value as AnyTensor);
  }

  /** The product of the gradient and a sigmoid, where it is rounded, and summed for the bias. */
  #joinLogDecayBackward({ inputs: { a, b }, outputs: { value }, tag }: Node): void {
    const gradient = a?.node.op === negOp ? a.node.inputs.x : undefined;
    const strength = b?.node.op === sigmoidOp ? this.#strengthOf(b.node.inputs.x) : undefined;
    const readers = value ? (this.#readers.get(value) ?? []) : [];
    const rounded = readers.find((reader) => reader?.op === castOp)?.outputs.value;
    const summed = readers.find((reader) => reader?.op === sumOp);
    const total = summed?.outputs.value;
    if (!gradient || !strength || readers.length !== 2 || rounded?.dtype !== "bfloat16" || !total) return;
    if (String(summed.attributes.axes) !== "0,1") return;
    const joined = once((lookup) => applyOp(logDecayBackwardOp, mapped({ ...strength, gradient }, lookup), {}, tag));
    this.#replacements.set(rounded, (lookup) => joined(lookup).x as AnyTensor);
    this.#replacements.set(total, (lookup) => reshape(joined(lookup).bias as Tensor, total.shape));
  }

  #replaceAll(
    joined: (lookup: Lookup) => OpOutputs,
    tensors: { readonly [name: string]: AnyTensor | undefined },
  ): void {
    for (const [name, tensor] of Object.entries(tensors)) {
      if (tensor) this.#replacements.set(tensor, (lookup) => joined(lookup)[name] as AnyTensor);
    }
  }
}
