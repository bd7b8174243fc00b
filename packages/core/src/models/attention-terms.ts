// What a model attends to, taken apart: the terms of the score and the attention of every layer, for looking at them.

import { Dim } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { Graph } from "../graph/graph.ts";
import type { AnyTensor, Node, Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { and } from "../ops/and.ts";
import { type AttentionInputs, attentionOp, swapHeads } from "../ops/attention.ts";
import { decayFactors, importanceTerm } from "../ops/decay-attention.ts";
import {
  type ForgettingAttentionAttributes,
  type ForgettingAttentionInputs,
  forgettingAttentionOp,
  forgottenOf,
  nearKeys,
} from "../ops/forgetting-attention.ts";
import { iota } from "../ops/iota.ts";
import { lessEqual } from "../ops/less-equal.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { sigmoidWeights } from "../ops/sigmoid-decay-attention.ts";
import {
  type SisaAttentionInputs,
  type SisaForm,
  type SisaWeights,
  sdpaChannels,
  sisaAttentionOp,
} from "../ops/sisa-attention.ts";
import { softmax } from "../ops/softmax.ts";
import { ssmPrepare } from "../ops/ssm-prepare.ts";
import { where } from "../ops/where.ts";
import type { TensorSpec } from "../spec.ts";
import type { LanguageModel } from "./language-model.ts";

/** A graph from ids int32 [B,T] and parameters to the terms of every layer's score. */
export type AttentionTermsGraph = Graph<
  { readonly ids: TensorSpec<"int">; readonly [parameter: string]: TensorSpec },
  { readonly [term: string]: TensorSpec<"float"> }
>;

/**
 * The terms of every layer's attention, read off the model's own graph.
 *
 * Inputs: `ids` int32 [B,T] and all parameters. Outputs, for each layer N that attends; [B,H,T,T], query before key,
 * 0 where the query does not see the key; the model's meta tokens stand in front and add to T:
 *
 * | output | |
 * |---|---|
 * | `layers.N.content` | scale * q_i . k_j |
 * | `layers.N.importance` | SISA layers: lambda * exp(g_i - g_j) * (R(Phi_i) c_i) . (R(Phi_j) b_j), as the layer's form computes it |
 * | `layers.N.bias` | where the layer adds another to its scores, that bias, of any shape that broadcasts |
 * | `layers.N.forgetting` | layers that forget (FoX, ALiBi): the sum of log gates from key to query, g_i - g_j |
 * | `layers.N.attention` | softmax over the keys of the sum of all, or its sigmoid, which weighs the values |
 * | `layers.N.logDecay` | SISA layers: log alpha, [B,T,H] |
 *
 * @throws GraphError for a model in which no layer attends
 */
export function attentionTermsGraph(model: LanguageModel): AttentionTermsGraph {
  const graph = model.logitsGraph();
  const outputs: Record<string, AnyTensor> = {};
  for (const node of graph.nodes) {
    const terms = termsOf(node);
    if (terms === undefined) continue;
    const prefix = layerOf(node);
    const { content, importance, bias, forgetting } = terms;
    const scores = [importance, bias, forgetting].reduce<Tensor>((sum, term) => (term ? add(sum, term) : sum), content);
    const past = pastKeys(scores);
    const seen = terms.near ? and(past, terms.near) : past;
    for (const [name, term] of Object.entries({ content, importance, bias, forgetting })) {
      if (term) outputs[prefix + name] = where(seen, term, 0);
    }
    outputs[`${prefix}attention`] = terms.weigh(where(seen, scores, Number.NEGATIVE_INFINITY));
    if (terms.logDecay) outputs[`${prefix}logDecay`] = terms.logDecay;
  }
  if (Object.keys(outputs).length === 0) {
    throw new GraphError("attentionTermsGraph: expected a model with attention or SISA layers, got none of them");
  }
  return new Graph(graph.inputTensors, outputs) as unknown as AttentionTermsGraph;
}

interface Terms {
  readonly content: Tensor;
  readonly importance?: Tensor;
  readonly bias?: Tensor | undefined;
  readonly forgetting?: Tensor | undefined;
  /** Keys that are not too far away; undefined where none is. */
  readonly near?: Tensor<"bool"> | undefined;
  readonly logDecay?: Tensor;
  /** Weights of scores, which are minus infinity where a key is not seen. */
  weigh(scores: Tensor): Tensor;
}

/** The terms of a node that is some layer's attention, else undefined. */
function termsOf({ op, inputs, attributes }: Node): Terms | undefined {
  const scale = attributes.scale as number;
  const content = ({ q, k }: Pick<AttentionInputs, "q" | "k">) =>
    mul(matmul(swapHeads(q), swapHeads(k), { transposeB: true }), scale);
  if (op === attentionOp) {
    const attention = inputs as AttentionInputs;
    return { content: content(attention), bias: attention.bias, weigh: softmax };
  }
  if (op === forgettingAttentionOp) {
    const fading = inputs as ForgettingAttentionInputs;
    const near = nearKeys(fading, attributes as ForgettingAttentionAttributes);
    return { content: content(fading), forgetting: forgottenOf(fading), near, weigh: softmax };
  }
  if (op !== sisaAttentionOp) return undefined;
  const sisa = inputs as SisaAttentionInputs;
  const [form, weights] = [attributes.form as SisaForm, attributes.weights as SisaWeights];
  return {
    content: content(sisa),
    importance: importanceOf(sisa, form, scale),
    logDecay: sisa.logDecay,
    weigh: weights === "softmax" ? softmax : (scores) => sigmoidWeights(sisa, scores),
  };
}

function importanceOf(inputs: SisaAttentionInputs, form: SisaForm, scale: number): Tensor {
  if (form === "sdpa") {
    const { query, key } = sdpaChannels(inputs, scale);
    return mul(matmul(swapHeads(query), swapHeads(key), { transposeB: true }), scale);
  }
  const { q, k, v, c, b, logDecay, phase, lambda } = inputs;
  const { cRotated, bRotated, g } = ssmPrepare({ c, b, logDecay, phase });
  return importanceTerm({ q, k, v, cRotated, bRotated, gQuery: g, gKey: g, lambda }, decayFactors(g, g, undefined));
}

/** True where the key is not after the query, [T,T]. */
function pastKeys({ shape }: Tensor): Tensor<"bool"> {
  const length = shape[2] ?? Dim.of(0);
  return lessEqual(iota(length), reshape(iota(length), [length, 1]));
}

/** `layers.N.` of the layer that a node belongs to: that of the parameter that was used last before it. */
function layerOf(node: Node): string {
  const pending = Object.values(node.inputs);
  // Breadth first: what the layer itself projects with is nearer than anything of the layers before it.
  for (const { node: from } of pending) {
    const name = from.attributes.name;
    const prefix = typeof name === "string" ? /^layers\.\d+\./.exec(name)?.[0] : undefined;
    if (prefix !== undefined) return prefix;
    pending.push(...Object.values(from.inputs));
  }
  throw new GraphError("attentionTermsGraph: expected attention on parameters of a layer, found none");
}
