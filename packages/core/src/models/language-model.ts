// A decoder-only language model: embedding, blocks of mixers and feed-forward, final norm, head. The list of mixers makes
// it a Transformer, a SISA model, a state space model, or any mix.

import { Dim, type DimLike } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { type Graph, trace } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { Block, type FeedForward } from "../layers/block.ts";
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
import type { KeyValues, MixerCache, MixerContext } from "../layers/mixer.ts";
import { RoutedFeedForward } from "../layers/routed-feed-forward.ts";
import { add } from "../ops/add.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { concat } from "../ops/concat.ts";
import { constant } from "../ops/constant.ts";
import { gather } from "../ops/gather.ts";
import { iota } from "../ops/iota.ts";
import { less } from "../ops/less.ts";
import { linear } from "../ops/linear.ts";
import { linearCrossEntropy } from "../ops/linear-cross-entropy.ts";
import { max } from "../ops/max.ts";
import { maximum } from "../ops/maximum.ts";
import { minimum } from "../ops/minimum.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { slice } from "../ops/slice.ts";
import { sub } from "../ops/sub.ts";
import { takeRow } from "../ops/take-row.ts";
import { where } from "../ops/where.ts";
import { i32, type TensorSpec } from "../spec.ts";
import { checkModelConfig, feedForwardOfLayer, type ModelConfig, mixersOfLayer } from "./config.ts";
import { createMixer, type MixerKind } from "./mixers.ts";
import { tokenScores } from "./token-scores.ts";

type Tensors = { readonly [name: string]: Tensor };
type ParameterSpecs = { readonly [name: string]: TensorSpec<"float"> };

type Ids = TensorSpec<"int">;

// An index signature beside names of another kind cannot be written as an intersection that objects satisfy, so the
// parameters are typed with the ids.
/** From ids int32 [B,T] and parameters to logits float32 [B,T,V]. */
export type LogitsGraph = Graph<
  { readonly ids: Ids; readonly [parameter: string]: TensorSpec },
  { readonly logits: TensorSpec<"float"> }
>;
/** From ids and targets int32 [B,T] and parameters to the mean loss `value`, in nats a token. */
export type LossGraph = Graph<
  { readonly ids: Ids; readonly targets: Ids; readonly [parameter: string]: TensorSpec },
  { readonly value: TensorSpec<"float"> }
>;
/**
 * From ids int32 [B,T], places and targets int32 to the log-probability of each target, and the likeliest token there.
 */
export type ScoreGraph = Graph<
  { readonly ids: Ids; readonly places: Ids; readonly targets: Ids; readonly [parameter: string]: TensorSpec },
  { readonly logProbability: TensorSpec<"float">; readonly predicted: Ids }
>;
/**
 * From ids int32 [B,T], start and last int32 [B], parameters and caches to the logits after `last`, [B,V], and the
 * caches with the tokens written.
 */
export type DecodeGraph = Graph<
  { readonly ids: Ids; readonly start: Ids; readonly last: Ids; readonly [parameterOrCache: string]: TensorSpec },
  { readonly logits: TensorSpec<"float">; readonly [cache: string]: TensorSpec }
>;

/**
 * From ids int32 [B,T], start int32 [B], places, parameters and caches to the logits at those places, and the caches
 * with the tokens written.
 */
export type StepGraph = Graph<
  { readonly ids: Ids; readonly start: Ids; readonly places: Ids; readonly [parameterOrCache: string]: TensorSpec },
  { readonly logits: TensorSpec<"float">; readonly [cache: string]: TensorSpec }
>;

/** Names and shapes of the parameters are those of the paper's code, so that its checkpoints load unchanged. */
export class LanguageModel implements Layer {
  /** As given and checked. */
  readonly config: ModelConfig;
  /**
   * All weights: the embedding, those of each layer under `layers.N.`, the final norm, and the head where it is not the
   * embedding.
   */
  readonly parameters: Parameters;
  /** Mixers that keep a state in place of all positions, by kind; a sequence cannot go back where there are any. */
  readonly recurrentKinds: readonly MixerKind[];
  /** Ids of the meta tokens, which stand in front of every sequence when decoding. They follow the vocabulary's. */
  readonly prefix: readonly number[];
  readonly #ends: { readonly parameters: Record<"embed.weight" | "final_norm.weight", Parameter> };
  readonly #options: Layer;
  readonly #blocks: readonly { readonly prefix: string; readonly block: Block }[];

  /** @throws ConfigError for a configuration that cannot be */
  constructor(config: ModelConfig) {
    this.config = checkModelConfig(config);
    const { width, vocabularySize, metaTokens = 0, tiedHead = true, normEpsilon, combination = "sum" } = config;
    const recurrent = new Set<MixerKind>();
    this.#blocks = config.mixers.map((_, layer) => {
      const mixers = mixersOfLayer(config, layer).map((settings) => {
        const mixer = createMixer(settings, config);
        if (mixer.isRecurrent) recurrent.add(settings.kind);
        return mixer;
      });
      const feedForward = createFeedForward(config, layer);
      return { prefix: `layers.${layer}.`, block: new Block({ width, normEpsilon, mixers, combination, feedForward }) };
    });
    this.recurrentKinds = [...recurrent];
    this.prefix = Array.from({ length: metaTokens }, (_, index) => vocabularySize + index);
    this.#ends = {
      parameters: { "embed.weight": normal([vocabularySize, width], 0.02), "final_norm.weight": filled([width], 1) },
    };
    this.#options = {
      parameters: {
        ...(metaTokens > 0 ? { "meta_tokens.weight": normal([metaTokens, width], 1) } : {}),
        ...(tiedHead ? {} : { "lm_head.weight": normal([vocabularySize, width], 0.02) }),
      },
    };
    this.parameters = {
      "embed.weight": this.#ends.parameters["embed.weight"],
      ...Object.assign({}, ...this.#blocks.map(({ prefix, block }) => mount(prefix, block))),
      "final_norm.weight": this.#ends.parameters["final_norm.weight"],
      ...this.#options.parameters,
    };
  }

  /** Final hidden states [B,T,M] of ids [B,T], with the caches as the tokens leave them. */
  #hidden(p: Tensors, ids: Tensor<"int">, decoding?: MixerCache) {
    const { "embed.weight": embed, "final_norm.weight": finalNorm } = parametersUnder(p, "", this.#ends);
    const options = parametersUnder(p, "", this.#options);
    const meta = options["meta_tokens.weight"];
    let x = meta ? this.#embedWithMeta(embed, meta, ids, decoding !== undefined) : gather(embed, ids);
    const positions = positionsOf(x, decoding?.start, this.config);
    const tables = new Map<number, Rotation>();
    const rope = (width: number) => {
      const known = tables.get(width) ?? rotationAt(positions, width, this.config);
      tables.set(width, known);
      return known;
    };
    const cache: Record<string, Tensor> = {};
    const spans: Tensor[] = [];
    let keyValues: KeyValues | undefined;
    for (const { prefix, block } of this.#blocks) {
      const entries = decoding && entriesUnder(decoding.entries, prefix);
      const context: MixerContext = {
        rope,
        metaTokens: this.prefix.length,
        keyValues,
        ...(decoding && entries ? { cache: { ...decoding, entries } } : {}),
      };
      const result = block.forward(parametersUnder(p, prefix, block), x, context);
      for (const [name, tensor] of Object.entries(result.cache)) cache[prefix + name] = tensor;
      if (result.decaySpan) spans.push(max(result.decaySpan, { axes: [-1] }));
      keyValues = result.keyValues ?? keyValues;
      x = result.value;
    }
    if (meta && !decoding) x = slice(x, { axis: 1, start: this.prefix.length });
    const hidden = rmsNorm(x, finalNorm, { epsilon: this.config.normEpsilon });
    const head = options["lm_head.weight"] ?? embed;
    return { hidden, head, cache, decaySpan: spans.length > 0 ? spans.reduce((a, b) => maximum(a, b)) : undefined };
  }

  /** In a full pass the meta tokens are put in front; when decoding they come as ids above the vocabulary. */
  #embedWithMeta(embed: Tensor, meta: Tensor, ids: Tensor<"int">, isDecoding: boolean): Tensor {
    const [B = Dim.of(1), T = Dim.of(1)] = ids.shape;
    const { vocabularySize, width } = this.config;
    const count = this.prefix.length;
    if (!isDecoding) return concat([broadcastTo(meta, [B, count, width]), gather(embed, ids)], { axis: 1 });
    const isWord = less<"int">(ids, vocabularySize);
    const word = gather(embed, minimum<"int">(ids, vocabularySize - 1));
    const place = minimum<"int">(maximum<"int">(sub<"int">(ids, vocabularySize), 0), count - 1);
    return where(reshape(isWord, [B, T, 1]), word, gather(meta, place));
  }

  /** Logits [B,T,V] of every position of ids int32 [B,T]. @throws GraphError where a parameter is missing */
  logits(p: Tensors, ids: Tensor<"int">): Tensor {
    const { hidden, head } = this.#hidden(p, ids);
    return linear(hidden, head);
  }

  /**
   * Mean cross-entropy [], in nats, of targets after ids, int32 [B,T] each.
   * @throws GraphError where a parameter is missing
   */
  loss(p: Tensors, ids: Tensor<"int">, targets: Tensor<"int">): Tensor {
    const { hidden, head } = this.#hidden(p, ids);
    return linearCrossEntropy({ x: hidden, weight: head, targets });
  }

  /** Inputs `ids` int32 [B,T] and all parameters; output `logits` [B,T,V]. */
  logitsGraph(): LogitsGraph {
    const graph = trace({ ids: i32("B", "T"), ...parameterSpecs(this) }, ({ ids, ...p }) => ({
      logits: this.logits(p as Tensors, ids as Tensor<"int">),
    }));
    return graph as unknown as LogitsGraph;
  }

  /** Inputs `ids` and `targets` int32 [B,T] and all parameters; output `value` [], the mean loss in nats. */
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
      const { hidden, head } = this.#hidden(p as Tensors, ids as Tensor<"int">);
      return tokenScores({
        hidden,
        weight: head,
        places: places as Tensor<"int">,
        targets: targets as Tensor<"int">,
      });
    });
    return graph as unknown as ScoreGraph;
  }

  /** What a cache keeps, by `layers.N.<entry>`. */
  cacheSpecs(batch: DimLike = "B", capacity: DimLike = "C"): ParameterSpecs {
    return Object.fromEntries(
      this.#blocks.flatMap(({ prefix, block }) =>
        Object.entries(block.cacheSpecs(batch, capacity)).map(([name, spec]) => [prefix + name, spec]),
      ),
    );
  }

  /**
   * One step of cached decoding: prefill, a chunk or a single token are the same graph at another T.
   *
   * Inputs: `ids` int32 [B,T]; `start` int32 [B], how many tokens each row has already, meta tokens included; `last` int32
   * [B], the last of the T tokens that counts, for which the logits are, so that rows of unequal length can be padded at
   * the end; -1 for a row that has none in this step and keeps its states; the caches; all parameters.
   * Outputs: `logits` [B,V]; the caches with the tokens written; for form `sdpa` also `decaySpan` [B], which must stay
   * below twice `sdpaClamp` for cached decoding to equal a full pass.
   *
   * @param batch    rows B; default a symbol
   * @param capacity C of the caches; default a symbol. A model that only keeps states has none
   */
  decodeGraph(batch: DimLike = "B", capacity: DimLike = "C"): DecodeGraph {
    const caches = this.cacheSpecs(batch, capacity);
    return this.#cachedGraph({ last: i32(batch) }, { batch, caches }, (hidden, { last }) =>
      takeRow(hidden, maximum<"int">(last, 0)),
    ) as DecodeGraph;
  }

  /**
   * `decodeGraph` with the logits of any positions: it takes `places` int32 [R], counted through the rows one after another
   * (row * T + position), and gives `logits` [R,V]. It takes `last` too only where the model keeps states.
   *
   * @throws GraphError for pages where the model keeps states
   */
  stepGraph(
    options: {
      /**
       * Rows of a page, where caches are pools of pages that all rows share: they are [N,pageSize,...], and the graph takes
       * `pages` int32 [B,M], where each row's tokens lie (see `cacheWrite`). Default: caches are [B,C,...]
       */
      readonly pageSize?: number;
    } = {},
  ): StepGraph {
    const { pageSize } = options;
    const isRecurrent = this.recurrentKinds.length > 0;
    if (isRecurrent && pageSize !== undefined) {
      throw new GraphError(`stepGraph: ${this.recurrentKinds.join(", ")} layers keep a state, not rows in pages`);
    }
    const choice = {
      places: i32("R"),
      ...(isRecurrent ? { last: i32("B") } : {}),
      ...(pageSize === undefined ? {} : { pages: i32("B", "M") }),
    };
    const sizes = pageSize === undefined ? [] : (["N", pageSize] as const);
    const caches = this.cacheSpecs(...sizes);
    return this.#cachedGraph(choice, { batch: "B", caches }, (hidden, { places }) => {
      const [B = Dim.of(0), T = Dim.of(0), M = Dim.of(0)] = hidden.shape;
      return gather(reshape(hidden, [B.times(T), M]), places);
    }) as StepGraph;
  }

  /** Cached decoding with the logits of the hidden states that `chosen` picks from [B,T,M] by its inputs. */
  #cachedGraph<const I extends Readonly<Record<string, TensorSpec<"int">>>>(
    choice: I,
    { batch, caches }: { readonly batch: DimLike; readonly caches: ParameterSpecs },
    chosen: (hidden: Tensor, choice: { readonly [N in keyof I]: Tensor<"int"> }) => Tensor,
  ): unknown {
    const specs = { ids: i32(batch, "T"), start: i32(batch), ...choice };
    return trace({ ...specs, ...caches, ...parameterSpecs(this) }, (tensors) => {
      const { ids, start, last, pages } = tensors as unknown as Decoding;
      const p = tensors as unknown as Tensors;
      const entries = Object.fromEntries(Object.keys(caches).map((name) => [name, p[name] as Tensor]));
      const { hidden, head, cache, decaySpan } = this.#hidden(p, ids, { start, last, pages, entries });
      const rows = chosen(hidden, tensors as unknown as { readonly [N in keyof I]: Tensor<"int"> });
      return { logits: linear(rows, head), ...(decaySpan ? { decaySpan } : {}), ...cache };
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

/** What cached decoding takes beside parameters and caches. */
interface Decoding {
  readonly ids: Tensor<"int">;
  readonly start: Tensor<"int">;
  readonly last?: Tensor<"int">;
  readonly pages?: Tensor<"int">;
}

interface Rotation {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** int32 [B,T] positions when decoding; else how many there are. Those of padding stay within the table. */
function positionsOf(x: Tensor, start: Tensor<"int"> | undefined, config: ModelConfig): Tensor<"int"> | Dim {
  const [B = Dim.of(0), T = Dim.of(0)] = x.shape;
  if (!start) return T;
  const positions = add<"int">(iota(T), reshape(start, [B, 1]));
  return minimum<"int">(positions, tableLength(config) - 1);
}

function tableLength({ maximumLength, metaTokens = 0 }: ModelConfig): number {
  return maximumLength + metaTokens;
}

/**
 * Cosines and sines of position * base^(-2 i / width), from float64, for [B,T,H,width/2].
 * Source: Su et al. 2021, arXiv:2104.09864.
 */
function rotationAt(positions: Tensor<"int"> | Dim, width: number, config: ModelConfig): Rotation {
  const half = width / 2;
  const rows = tableLength(config);
  const angle = (index: number) => Math.floor(index / half) * config.ropeBase ** (-(index % half) / half);
  const at = (of: (angle: number) => number): Tensor => {
    const values = Float32Array.from({ length: rows * half }, (_, index) => of(angle(index)));
    const table = constant(values, "float32", [rows, half]);
    if (Dim.is(positions)) return reshape(slice(table, { axis: 0, end: positions }), [positions, 1, half]);
    const [B = 1, T = 1] = positions.shape;
    return reshape(gather(table, positions), [B, T, 1, half]);
  };
  return { cos: at(Math.cos), sin: at(Math.sin) };
}

function createFeedForward(config: ModelConfig, layer: number): FeedForward | undefined {
  switch (feedForwardOfLayer(config, layer)) {
    case "none":
      return undefined;
    case "dense":
      return new GatedFeedForward(config);
    case "routed":
      // Checked with the configuration.
      return new RoutedFeedForward({ ...config, experts: config.experts ?? { count: 1, perToken: 1 } });
  }
}

/** A language model from its configuration. @throws ConfigError for one that cannot be */
export function languageModel(config: ModelConfig): LanguageModel {
  return new LanguageModel(config);
}
