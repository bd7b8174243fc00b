// A decoder-only language model: embedding, blocks of mixer and feed-forward, final norm, tied head. The list of mixers
// makes it a Transformer, a SISA model, or any mix.

import { Dim, type DimLike } from "../dim.ts";
import { type Graph, trace } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { AttentionMixer } from "../layers/attention-mixer.ts";
import { GatedFeedForward } from "../layers/gated-feed-forward.ts";
import {
  filled,
  type Layer,
  mount,
  normal,
  type Parameter,
  type Parameters,
  parameterSpecs,
  parametersUnder,
} from "../layers/layer.ts";
import type { Mixer, MixerContext } from "../layers/mixer.ts";
import { SisaMixer } from "../layers/sisa-mixer.ts";
import { add } from "../ops/add.ts";
import { constant } from "../ops/constant.ts";
import { gather } from "../ops/gather.ts";
import { iota } from "../ops/iota.ts";
import { linear } from "../ops/linear.ts";
import { linearCrossEntropy } from "../ops/linear-cross-entropy.ts";
import { max } from "../ops/max.ts";
import { maximum } from "../ops/maximum.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { slice } from "../ops/slice.ts";
import { takeRow } from "../ops/take-row.ts";
import { i32, type TensorSpec } from "../spec.ts";
import { checkModelConfig, type ModelConfig } from "./config.ts";
import { tokenScores } from "./token-scores.ts";

type Tensors = { readonly [name: string]: Tensor };
type ParameterSpecs = { readonly [name: string]: TensorSpec<"float"> };

type Ids = TensorSpec<"int">;

// An index signature beside names of another kind cannot be written as an intersection that objects satisfy, so the
// parameters are typed with the ids.
export type LogitsGraph = Graph<
  { readonly ids: Ids; readonly [parameter: string]: TensorSpec },
  { readonly logits: TensorSpec<"float"> }
>;
export type LossGraph = Graph<
  { readonly ids: Ids; readonly targets: Ids; readonly [parameter: string]: TensorSpec },
  { readonly value: TensorSpec<"float"> }
>;
export type ScoreGraph = Graph<
  { readonly ids: Ids; readonly places: Ids; readonly targets: Ids; readonly [parameter: string]: TensorSpec },
  { readonly logProbability: TensorSpec<"float">; readonly predicted: Ids }
>;
export type DecodeGraph = Graph<
  { readonly ids: Ids; readonly start: Ids; readonly last: Ids; readonly [parameterOrCache: string]: TensorSpec },
  { readonly logits: TensorSpec<"float">; readonly [cache: string]: TensorSpec }
>;

export type StepGraph = Graph<
  { readonly ids: Ids; readonly start: Ids; readonly places: Ids; readonly [parameterOrCache: string]: TensorSpec },
  { readonly logits: TensorSpec<"float">; readonly [cache: string]: TensorSpec }
>;

interface Block {
  readonly prefix: string;
  readonly mixer: Mixer;
  readonly feedForward: GatedFeedForward;
}

/** Names and shapes of the parameters are those of the paper's code, so that its checkpoints load unchanged. */
export class LanguageModel implements Layer {
  readonly config: ModelConfig;
  readonly parameters: Parameters;
  readonly #ends: { readonly parameters: Record<"embed.weight" | "final_norm.weight", Parameter> };
  readonly #blocks: readonly Block[];
  #ropeTable: RopeTable | undefined;

  /** @throws ConfigError */
  constructor(config: ModelConfig) {
    this.config = checkModelConfig(config);
    const { width, vocabularySize } = config;
    this.#blocks = config.mixers.map((kind, index) => ({
      prefix: `layers.${index}.`,
      mixer: kind === "sisa" ? new SisaMixer(config) : new AttentionMixer(config),
      feedForward: new GatedFeedForward(config),
    }));
    this.#ends = {
      parameters: { "embed.weight": normal([vocabularySize, width], 0.02), "final_norm.weight": filled([width], 1) },
    };
    this.parameters = {
      "embed.weight": this.#ends.parameters["embed.weight"],
      ...Object.assign(
        {},
        ...this.#blocks.flatMap(({ prefix, mixer, feedForward }) => [mount(prefix, mixer), mount(prefix, feedForward)]),
      ),
      "final_norm.weight": this.#ends.parameters["final_norm.weight"],
    };
  }

  /** Final hidden states [B,T,M] of ids [B,T], with the caches as the tokens leave them. */
  #hidden(p: Tensors, ids: Tensor<"int">, decoding?: { readonly start: Tensor<"int">; readonly entries: Tensors }) {
    const { "embed.weight": embed, "final_norm.weight": finalNorm } = parametersUnder(p, "", this.#ends);
    let x = gather(embed, ids);
    const rope = this.#ropeAt(ids, decoding?.start);
    const cache: Record<string, Tensor> = {};
    const spans: Tensor[] = [];
    for (const { prefix, mixer, feedForward } of this.#blocks) {
      const context: MixerContext = decoding
        ? { rope, cache: { start: decoding.start, entries: entriesUnder(decoding.entries, prefix) } }
        : { rope };
      const mixed = mixer.forward(parametersUnder(p, prefix, mixer), x, context);
      for (const [name, tensor] of Object.entries(mixed.cache)) cache[prefix + name] = tensor;
      if (mixed.decaySpan) spans.push(max(mixed.decaySpan, { axes: [-1] }));
      x = feedForward.forward(parametersUnder(p, prefix, feedForward), mixed.value);
    }
    const hidden = rmsNorm(x, finalNorm, { epsilon: this.config.normEpsilon });
    return { hidden, embed, cache, decaySpan: spans.length > 0 ? spans.reduce((a, b) => maximum(a, b)) : undefined };
  }

  #ropeAt(ids: Tensor<"int">, start: Tensor<"int"> | undefined): MixerContext["rope"] {
    const { maximumLength, width, heads } = this.config;
    const half = width / heads / 2;
    const [B = Dim.of(0), T = Dim.of(0)] = ids.shape;
    const at = (values: Float32Array): Tensor => {
      const table = constant(values, "float32", [maximumLength, half]);
      if (!start) return reshape(slice(table, { axis: 0, end: T }), [T, 1, half]);
      const positions = add<"int">(iota(T), reshape(start, [B, 1]));
      return reshape(gather(table, positions), [B, T, 1, half]);
    };
    // Counting parameters needs no table, and a long one is large.
    this.#ropeTable ??= ropeTable(this.config);
    return { cos: at(this.#ropeTable.cos), sin: at(this.#ropeTable.sin) };
  }

  /** Logits [B,T,V] of every position. */
  logits(p: Tensors, ids: Tensor<"int">): Tensor {
    const { hidden, embed } = this.#hidden(p, ids);
    return linear(hidden, embed);
  }

  /** Mean cross-entropy in nats of targets [B,T] after ids [B,T]. */
  loss(p: Tensors, ids: Tensor<"int">, targets: Tensor<"int">): Tensor {
    const { hidden, embed } = this.#hidden(p, ids);
    return linearCrossEntropy({ x: hidden, weight: embed, targets });
  }

  /** Inputs `ids` int32 [B,T] and all parameters; output `logits` [B,T,V]. */
  logitsGraph(): LogitsGraph {
    const graph = trace({ ids: i32("B", "T"), ...parameterSpecs(this) }, ({ ids, ...p }) => ({
      logits: this.logits(p as Tensors, ids as Tensor<"int">),
    }));
    return graph as unknown as LogitsGraph;
  }

  /** Inputs `ids` and `targets` int32 [B,T] and all parameters; output `value`, the loss. */
  lossGraph(): LossGraph {
    const inputs = { ids: i32("B", "T"), targets: i32("B", "T"), ...parameterSpecs(this) };
    const graph = trace(inputs, ({ ids, targets, ...p }) => ({
      value: this.loss(p as Tensors, ids as Tensor<"int">, targets as Tensor<"int">),
    }));
    return graph as unknown as LossGraph;
  }

  /**
   * What the model says of tokens at some places.
   *
   * Inputs: `ids` int32 [B,T]; `places` int32 [R], the positions that say something, counted through the rows one after
   * another (row * T + position); `targets` int32 [R], the token to score at each; all parameters.
   * Outputs: `logProbability` [R], natural logarithms; `predicted` int32 [R], the most likely token.
   */
  scoreGraph(): ScoreGraph {
    const inputs = { ids: i32("B", "T"), places: i32("R"), targets: i32("R"), ...parameterSpecs(this) };
    const graph = trace(inputs, ({ ids, places, targets, ...p }) => {
      const { hidden, embed } = this.#hidden(p as Tensors, ids as Tensor<"int">);
      return tokenScores({
        hidden,
        weight: embed,
        places: places as Tensor<"int">,
        targets: targets as Tensor<"int">,
      });
    });
    return graph as unknown as ScoreGraph;
  }

  /** What a cache keeps, by `layers.N.<entry>`. */
  cacheSpecs(batch: DimLike = "B", capacity: DimLike = "C"): ParameterSpecs {
    return Object.fromEntries(
      this.#blocks.flatMap(({ prefix, mixer }) =>
        Object.entries(mixer.cacheSpecs(batch, capacity)).map(([name, spec]) => [prefix + name, spec]),
      ),
    );
  }

  /**
   * One step of cached decoding: prefill, a chunk or a single token are the same graph at another T.
   *
   * Inputs: `ids` int32 [B,T]; `start` int32 [B], how many tokens each row has already; `last` int32 [B], which of the
   * T rows the logits are for, so that rows of unequal length can be padded at the end; the caches; all parameters.
   * Outputs: `logits` [B,V]; the caches with the tokens written; for form `sdpa` also `decaySpan` [B], which must stay
   * below twice `sdpaClamp` for cached decoding to equal a full pass.
   */
  decodeGraph(): DecodeGraph {
    return this.#cachedGraph({ last: i32("B") }, (hidden, { last }) => takeRow(hidden, last)) as DecodeGraph;
  }

  /**
   * `decodeGraph` with the logits of any positions: in place of `last` it takes `places` int32 [R], counted through the
   * rows one after another (row * T + position), and gives `logits` [R,V].
   */
  stepGraph(): StepGraph {
    return this.#cachedGraph({ places: i32("R") }, (hidden, { places }) => {
      const [B = Dim.of(0), T = Dim.of(0), M = Dim.of(0)] = hidden.shape;
      return gather(reshape(hidden, [B.times(T), M]), places);
    }) as StepGraph;
  }

  /** Cached decoding with the logits of the hidden states that `chosen` picks from [B,T,M] by its inputs. */
  #cachedGraph<const I extends Readonly<Record<string, TensorSpec<"int">>>>(
    choice: I,
    chosen: (hidden: Tensor, choice: { readonly [N in keyof I]: Tensor<"int"> }) => Tensor,
  ): unknown {
    const specs = { ids: i32("B", "T"), start: i32("B") };
    return trace({ ...specs, ...choice, ...this.cacheSpecs(), ...parameterSpecs(this) }, (tensors) => {
      const { ids, start } = tensors as { readonly ids: Tensor<"int">; readonly start: Tensor<"int"> };
      const p = tensors as unknown as Tensors;
      const entries = Object.fromEntries(Object.keys(this.cacheSpecs()).map((name) => [name, p[name] as Tensor]));
      const { hidden, embed, cache, decaySpan } = this.#hidden(p, ids, { start, entries });
      const rows = chosen(hidden, tensors as unknown as { readonly [N in keyof I]: Tensor<"int"> });
      return { logits: linear(rows, embed), ...(decaySpan ? { decaySpan } : {}), ...cache };
    });
  }
}

function entriesUnder(entries: Tensors, prefix: string): Tensors {
  return Object.fromEntries(
    Object.entries(entries).flatMap(([name, tensor]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), tensor]] : [],
    ),
  );
}

interface RopeTable {
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

/** Cosines and sines of position * base^(-2 i / D), from float64. Source: Su et al. 2021, arXiv:2104.09864. */
function ropeTable({ maximumLength, width, heads, ropeBase }: ModelConfig): RopeTable {
  const half = width / heads / 2;
  const angle = (index: number) => Math.floor(index / half) * ropeBase ** (-(index % half) / half);
  const length = maximumLength * half;
  return {
    cos: Float32Array.from({ length }, (_, index) => Math.cos(angle(index))),
    sin: Float32Array.from({ length }, (_, index) => Math.sin(angle(index))),
  };
}

/** A language model from its configuration. @throws ConfigError */
export function languageModel(config: ModelConfig): LanguageModel {
  return new LanguageModel(config);
}
