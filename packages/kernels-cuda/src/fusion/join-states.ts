// The backward pass of attention and of SISA's states with what would follow each of them: rotations of gradients, sums of
// both gradients of decays, on to the projection of decays, and casts. Decays from their projection in one operation.

import {
  type AnyTensor,
  addOp,
  applyOp,
  attentionBackwardOp,
  castOp,
  decayAttentionBackwardOp,
  decayAttentionOp,
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
  ssmPrepareOp,
  sumOp,
  type Tensor,
} from "@sisa/core";
import {
  attentionBackwardRotatedOp,
  decayAttentionBackwardJoinedOp,
  decayAttentionBackwardStatesOp,
  decayAttentionStatesOp,
  logDecayOp,
  ssmPrepareBackwardNarrowOp,
} from "./operations.ts";
import { type Lookup, mapped, once, readersOf, replaceTensors } from "./replace.ts";

export function joinStates(graph: Graph): Graph {
  return new Joiner(graph).join();
}

class Joiner {
  readonly #graph: Graph;
  readonly #readers: ReturnType<typeof readersOf>;
  readonly #replacements = new Map<AnyTensor, (lookup: Lookup) => AnyTensor>();
  /** What prepares states and attends, by rotated c. */
  readonly #withStates = new Map<AnyTensor, (lookup: Lookup) => OpOutputs>();
  /** Backward passes of states that are part of those of attention. */
  readonly #withAttention = new Set<Node>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#readers = readersOf(graph);
  }

  join(): Graph {
    for (const node of this.#graph.nodes) {
      if (node.op === attentionBackwardOp) this.#joinAttention(node);
      if (node.op === decayAttentionOp) this.#joinStates(node);
      if (node.op === decayAttentionBackwardOp) this.#joinDecayAttention(node);
      if (node.op === ssmPrepareBackwardOp) this.#joinPhase(node);
      if (node.op === negOp) this.#joinLogDecay(node);
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

  /** Where states come from c, b, and the projection of decays. */
  #joinStates(node: Node): void {
    const { cRotated, bRotated, gQuery, gKey, lambda, q, k, v, ...others } = node.inputs;
    if (!cRotated) return;
    const prepare = cRotated.node;
    if (prepare.op !== ssmPrepareOp || bRotated?.node !== prepare || gQuery !== gKey) return;
    if (gQuery?.node !== prepare || prepare.inputs.start || Object.keys(others).length > 0) return;
    const decays = this.#decaysOf(prepare.inputs.logDecay);
    if (!decays || this.#readerOf(prepare.inputs.logDecay) !== prepare) return;
    const { c, b, phase } = prepare.inputs;
    const inputs = { q, k, v, c, b, phase, strength: decays.x, strengthBias: decays.bias, lambda };
    const joined = once((lookup) => applyOp(decayAttentionStatesOp, mapped(inputs, lookup), node.attributes, node.tag));
    this.#withStates.set(cRotated, joined);
    this.#replaceAll(joined, { ...prepare.outputs, ...node.outputs });
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
    const [q, k] = rotations ? rotations.map(({ outputs }) => outputs.value) : [node.outputs.q, node.outputs.k];
    const g = sum.outputs.value;
    const goesOn = this.#readerOf(g) === prepare && prepare.inputs.gGradient === g && !prepare.inputs.phiGradient;
    const phase = goesOn ? this.#narrowPhaseOf(prepare) : undefined;
    const decays = phase && this.#strengthGradientOf(prepare.outputs.logDecay);
    const softened = decays && this.#softenedOf(lambda, node.inputs.lambda);
    const inputs = { ...node.inputs, ...(cos && sin ? { cos, sin } : {}) };
    if (!phase || !decays) {
      const joined = once((lookup) =>
        applyOp(decayAttentionBackwardJoinedOp, mapped(inputs, lookup), node.attributes, node.tag),
      );
      this.#replaceAll(joined, { q, k, v, cRotated, bRotated, lambda, g });
      return;
    }
    const ofStates = { phi: prepare.inputs.phi, strength: decays.x, strengthBias: decays.bias, raw: softened?.raw };
    const forward = this.#withStates.get(node.inputs.cRotated as AnyTensor);
    const joined = once((lookup) => {
      const { cSquares, bSquares } = forward?.(lookup) ?? {};
      const squares = cSquares && bSquares ? { cSquares, bSquares } : {};
      const given = { ...mapped({ ...inputs, ...ofStates }, lookup), ...squares };
      return applyOp(decayAttentionBackwardStatesOp, given, node.attributes, node.tag);
    });
    this.#withAttention.add(prepare);
    const { c, b } = prepare.outputs;
    this.#replaceAll(joined, { q, k, v, c, b, strength: decays.rounded, lambda: softened?.gradient ?? lambda });
    this.#replaceShaped(joined, "phase", phase);
    this.#replaceShaped(joined, "strengthBias", decays.total);
  }

  /** Where the gradient by lambda goes on to raw, with lambda = softplus(raw). */
  #softenedOf(gradient: AnyTensor | undefined, lambda: AnyTensor | undefined) {
    const { op, inputs, outputs } = this.#readerOf(gradient) ?? {};
    const raw = inputs?.b?.node.op === sigmoidOp ? inputs.b.node.inputs.x : undefined;
    const isSoftened = lambda?.node.op === softplusOp && lambda.node.inputs.x === raw && raw?.dtype === "float32";
    if (op !== mulOp || inputs?.a !== gradient || !raw || !isSoftened || !outputs?.value) return undefined;
    return { raw, gradient: outputs.value };
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

  /** The rounded gradient by the phase, where that is only read to be rounded, perhaps in another shape. */
  #narrowPhaseOf({ outputs: { phase } }: Node): AnyTensor | undefined {
    const reader = this.#readerOf(phase);
    const last = reader?.op === reshapeOp ? this.#readerOf(reader.outputs.value) : reader;
    const value = last?.outputs.value;
    return last?.op === castOp && value?.dtype === "bfloat16" && phase?.dtype === "float32" ? value : undefined;
  }

  #joinPhase(node: Node): void {
    const value = this.#withAttention.has(node) ? undefined : this.#narrowPhaseOf(node);
    if (!value) return;
    const joined = once((lookup) =>
      applyOp(ssmPrepareBackwardNarrowOp, mapped(node.inputs, lookup), node.attributes, node.tag),
    );
    const { c, b, logDecay } = node.outputs;
    this.#replaceAll(joined, { c, b, logDecay });
    this.#replaceShaped(joined, "phase", value);
  }

  /** x and the bias of each head, where a tensor is x + bias. */
  #strengthOf(tensor: AnyTensor | undefined): { readonly x: AnyTensor; readonly bias: AnyTensor } | undefined {
    const { op, inputs } = tensor?.node ?? {};
    const { a: x, b: bias } = inputs ?? {};
    const wide = [x, bias].every((term) => term?.dtype === "float32");
    if (op !== addOp || !x || !bias || !wide || x.shape.length !== 3 || bias.shape.length !== 1) return undefined;
    return sizesOf(x.shape)[2] === sizesOf(bias.shape)[0] ? { x, bias } : undefined;
  }

  #joinLogDecay({ outputs: { value } }: Node): void {
    const strength = this.#decaysOf(value);
    if (!value || !strength) return;
    this.#replacements.set(value, (lookup) => applyOp(logDecayOp, mapped(strength, lookup), {}).value as AnyTensor);
  }

  /** x and the bias of each head, where a tensor is -softplus(x + bias). */
  #decaysOf(tensor: AnyTensor | undefined) {
    const softened = tensor?.node.op === negOp ? tensor.node.inputs.x : undefined;
    if (softened?.node.op !== softplusOp || !this.#readerOf(softened)) return undefined;
    return this.#strengthOf(softened.node.inputs.x);
  }

  /** What a gradient by log decay becomes, where that is -softplus(x + bias): rounded by x, and summed by the bias. */
  #strengthGradientOf(gradient: AnyTensor | undefined) {
    const negative = this.#readerOf(gradient);
    const product = negative?.op === negOp ? this.#readerOf(negative.outputs.value) : undefined;
    const { a, b } = product?.inputs ?? {};
    const value = product?.outputs.value;
    const strength = b?.node.op === sigmoidOp ? this.#strengthOf(b.node.inputs.x) : undefined;
    const readers = value ? (this.#readers.get(value) ?? []) : [];
    const rounded = readers.find((reader) => reader?.op === castOp)?.outputs.value;
    const summed = readers.find((reader) => reader?.op === sumOp);
    const total = summed?.outputs.value;
    const isProduct = product?.op === mulOp && a === negative?.outputs.value;
    if (!isProduct || !strength || readers.length !== 2 || rounded?.dtype !== "bfloat16" || !total) return undefined;
    return String(summed.attributes.axes) === "0,1" ? { ...strength, rounded, total } : undefined;
  }

  #replaceAll(
    joined: (lookup: Lookup) => OpOutputs,
    tensors: { readonly [name: string]: AnyTensor | undefined },
  ): void {
    for (const [name, tensor] of Object.entries(tensors)) {
      if (tensor) this.#replacements.set(tensor, (lookup) => joined(lookup)[name] as AnyTensor);
    }
  }

  #replaceShaped(joined: (lookup: Lookup) => OpOutputs, name: string, tensor: AnyTensor): void {
    this.#replacements.set(tensor, (lookup) => reshape(joined(lookup)[name] as Tensor, tensor.shape));
  }
}
