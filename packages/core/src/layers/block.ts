// A block of a language model: a mixer, or several side by side, and a feed-forward, each with its norm and residual.

import type { DimLike } from "../dim.ts";
import { ConfigError } from "../errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { linear } from "../ops/linear.ts";
import { maximum } from "../ops/maximum.ts";
import { mul } from "../ops/mul.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import type { TensorSpec } from "../spec.ts";
import { filled, type Layer, mount, type Parameter, type Parameters, parametersUnder } from "./layer.ts";
import type { Mixer, MixerContext, MixerOutput } from "./mixer.ts";

/** What follows the mixers, with its own norm and residual. */
export interface FeedForward extends Layer {
  /** @param x [B,T,M] @returns [B,T,M], x included */
  forward(p: { readonly [name: string]: Tensor }, x: Tensor): Tensor;
}

/** How mixers side by side are put together: each through its own projection, or normed, averaged and projected once. */
export type Combination = "sum" | "mean";

/** What a block is put together from. */
export interface BlockParts {
  /** M */
  readonly width: number;
  /** Added under the root of norms */
  readonly normEpsilon: number;
  /** At least one; several see the same input. */
  readonly mixers: readonly Mixer[];
  /** Of several mixers; of one it changes nothing. */
  readonly combination: Combination;
  /** Default none: the mixers are the whole block. */
  readonly feedForward?: FeedForward | undefined;
}

/**
 * Pre-norm mixers and a residual, then a feed-forward.
 * y = x + W_O mix(norm(x)); with several mixers the sum of them, or W_O mean_m norm_m(mix_m(norm(x)))
 * Source: the sum as in Falcon-H1, arXiv:2507.22448; the mean as in Hymba, arXiv:2411.13676.
 */
export class Block implements Layer {
  /** As given. */
  readonly parts: BlockParts;
  /** Of norms, mixers, projections and feed-forward together. */
  readonly parameters: Parameters;

  /** @throws ConfigError where mixers cannot stand side by side */
  constructor(parts: BlockParts) {
    const { width, mixers, feedForward } = parts;
    this.parts = parts;
    const projections = this.#projects.map(({ names, innerWidth, outputInitializer }) => {
      const parameter: Parameter = { shape: [width, innerWidth], initializer: outputInitializer };
      return [names.output, parameter] as const;
    });
    const norms = this.#isMean
      ? mixers.map(({ innerWidth }, index) => [branchNorm(index), filled([innerWidth], 1)])
      : [];
    const own: (readonly [string, Parameter])[] = [
      [this.#norm, filled([width], 1)],
      ...mixers.flatMap((mixer) => Object.entries(mixer.parameters)),
      ...(norms as [string, Parameter][]),
      ...projections,
    ];
    const twice = own.map(([name]) => name).find((name, index, all) => all.indexOf(name) !== index);
    const widths = new Set(mixers.map(({ innerWidth }) => innerWidth));
    if (twice !== undefined) throw new ConfigError(`model: mixers side by side both have a parameter ${twice}`);
    if (this.#isMean && widths.size > 1) {
      throw new ConfigError(`model: mixers that are averaged must be equally wide inside, got ${[...widths]}`);
    }
    this.parameters = { ...Object.fromEntries(own), ...(feedForward ? mount("", feedForward) : {}) };
  }

  /** False for one mixer, which needs no other norm. */
  get #isMean(): boolean {
    return this.parts.mixers.length > 1 && this.parts.combination === "mean";
  }

  get #norm(): string {
    return this.parts.mixers[0]?.names.norm ?? "norm.weight";
  }

  /** Mixers whose output has a projection: of averaged ones only the first. */
  get #projects(): readonly Mixer[] {
    return this.#isMean ? this.parts.mixers.slice(0, 1) : this.parts.mixers;
  }

  /** True where a mixer keeps one state in place of all positions. */
  get isRecurrent(): boolean {
    return this.parts.mixers.some(({ isRecurrent }) => isRecurrent);
  }

  /** What all mixers keep, by their own names. */
  cacheSpecs(batch: DimLike, capacity: DimLike): { readonly [name: string]: TensorSpec<"float"> } {
    return Object.assign({}, ...this.parts.mixers.map((mixer) => mixer.cacheSpecs(batch, capacity)));
  }

  /**
   * @param x [B,T,M]
   * @returns `value` [B,T,M], x included, and the caches with the T tokens written
   * @throws GraphError where a parameter or an entry of the cache is missing
   */
  forward(p: { readonly [name: string]: Tensor }, x: Tensor, context: MixerContext): MixerOutput {
    const { mixers, normEpsilon, feedForward } = this.parts;
    const weight = (name: string) => p[name] as Tensor;
    const h = rmsNorm(x, weight(this.#norm), { epsilon: normEpsilon });
    const results = mixers.map((mixer) => mixer.forward(parametersUnder(p, "", mixer), h, context));
    const values = results.map(({ value }) => value);
    const inner = this.#isMean
      ? [mean(values.map((value, index) => rmsNorm(value, weight(branchNorm(index)), { epsilon: normEpsilon })))]
      : values;
    const outputs = this.#projects.map(({ names }, index) => linear(inner[index] as Tensor, weight(names.output)));
    const mixed = add(x, total(outputs));
    const spans = results.flatMap(({ decaySpan }) => decaySpan ?? []);
    const [keyValues] = results.flatMap(({ keyValues }) => keyValues ?? []);
    return {
      value: feedForward ? feedForward.forward(parametersUnder(p, "", feedForward), mixed) : mixed,
      cache: Object.assign({}, ...results.map(({ cache }) => cache)),
      ...(keyValues ? { keyValues } : {}),
      ...(spans.length > 0 ? { decaySpan: spans.reduce((a, b) => maximum(a, b)) } : {}),
    };
  }
}

function branchNorm(index: number): string {
  return `branch_norms.${index}.weight`;
}

function total(terms: readonly Tensor[]): Tensor {
  return terms.reduce((a, b) => add(a, b));
}

function mean(terms: readonly Tensor[]): Tensor {
  return mul(total(terms), 1 / terms.length);
}
