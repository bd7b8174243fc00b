// What a language model is made of, and its checks.

import { ConfigError } from "../errors.ts";
import type { Combination } from "../layers/block.ts";
import type { SisaForm } from "../ops/sisa-attention.ts";
import { checkMixerSettings, isMixerKind, type MixerKind, type MixerSettings, mixerKinds } from "./mixers.ts";

/** What follows the mixer of a layer: a gated feed-forward, experts of which each token takes a few, or nothing. */
export type FeedForwardKind = "dense" | "routed" | "none";

/** Everything that decides a model's parameters and what it computes. Fields that may be left out have a default. */
export interface ModelConfig {
  /**
   * One entry per layer, the name of a mixer: a kind such as `sisa` or `attention`, or a name of `mixerSettings`. Several
   * joined by "+" stand side by side: `attention+mamba2`. All `attention` is a Transformer, all `sisa` a SISA model.
   */
  readonly mixers: readonly string[];
  /** V */
  readonly vocabularySize: number;
  /** M */
  readonly width: number;
  /** H; the head width is width / heads */
  readonly heads: number;
  /** F; 0 where no layer has a feed-forward */
  readonly feedForwardWidth: number;
  /** Width per head of the states of SISA and state space layers, where their settings say nothing else. */
  readonly stateWidth: number;
  /** Form of SISA layers in a full pass. */
  readonly form: SisaForm;
  /** Tokens that a sequence can have; positions that the rotary table covers. */
  readonly maximumLength: number;
  /** Base of the wavelengths of rotary positions: 2 pi base^(2 i / D). */
  readonly ropeBase: number;
  /** Added under the root of norms. */
  readonly normEpsilon: number;
  /** What is special about mixers, by the names used in `mixers`. Default: every kind with its defaults. */
  readonly mixerSettings?: { readonly [name: string]: MixerSettings };
  /** How mixers side by side are put together. Default "sum" */
  readonly combination?: Combination;
  /** One entry per layer. Default: all `dense`, or all `none` where feedForwardWidth is 0 */
  readonly feedForwards?: readonly FeedForwardKind[];
  /** Of routed feed-forwards, which need it: how many experts there are and how many a token takes. Default none */
  readonly experts?: {
    /** E */
    readonly count: number;
    /** Those with the largest share, from 1 to E */
    readonly perToken: number;
  };
  /** Learned vectors in front of every sequence, in tokens. Default 0 */
  readonly metaTokens?: number;
  /** True where the embedding is the head too. Default true */
  readonly tiedHead?: boolean;
}

/** The mixers of a layer, each with its settings. @throws ConfigError for a name that is not known */
export function mixersOfLayer(config: ModelConfig, layer: number): readonly MixerSettings[] {
  return String(config.mixers[layer])
    .split("+")
    .map((name) => {
      const settings = config.mixerSettings?.[name];
      if (settings) return settings;
      if (isMixerKind(name)) return { kind: name };
      const names = [...new Set([...mixerKinds, ...Object.keys(config.mixerSettings ?? {})])];
      throw new ConfigError(`model: a mixer must be one of ${names.join(", ")}, got "${name}"`);
    });
}

/** Every kind of mixer that a model has. @throws ConfigError for a name that is not known */
export function mixerKindsOf(config: ModelConfig): ReadonlySet<MixerKind> {
  return new Set(config.mixers.flatMap((_, layer) => mixersOfLayer(config, layer).map(({ kind }) => kind)));
}

/** What follows the mixers of a layer. */
export function feedForwardOfLayer(config: ModelConfig, layer: number): FeedForwardKind {
  return config.feedForwards?.[layer] ?? (config.feedForwardWidth > 0 ? "dense" : "none");
}

/** Sizes above these fit no memory, and would take down a program that tries. */
const most = { size: 2_147_483_647, layers: 10_000, positions: 16_777_216 };

/** @throws ConfigError unless it is a number of layers that a model can have */
export function checkLayerCount(layers: number): void {
  if (Number.isInteger(layers) && layers >= 1 && layers <= most.layers) return;
  throw new ConfigError(`model: layers must be a whole number from 1 to ${most.layers}, got ${layers}`);
}

/** The configuration, checked. @throws ConfigError naming the first field that cannot be */
export function checkModelConfig(config: ModelConfig): ModelConfig {
  const { mixers, width, heads, form, feedForwards, experts, metaTokens = 0, combination = "sum" } = config;
  for (const name of ["vocabularySize", "width", "heads", "stateWidth"] as const) expectCount(name, config[name], 1);
  expectCount("maximumLength", config.maximumLength, 1, most.positions);
  expectCount("feedForwardWidth", config.feedForwardWidth, 0);
  expectCount("metaTokens", metaTokens, 0);
  for (const name of ["ropeBase", "normEpsilon"] as const) {
    if (!(config[name] > 0)) throw new ConfigError(`model: ${name} must be > 0, got ${config[name]}`);
  }
  if (!Array.isArray(mixers)) throw new ConfigError(`model: mixers must be a list, got ${JSON.stringify(mixers)}`);
  checkLayerCount(mixers.length);
  if (width % heads !== 0)
    throw new ConfigError(`model: heads must divide width, got heads ${heads} and width ${width}`);
  if (form !== "exact" && form !== "sdpa")
    throw new ConfigError(`model: form must be "exact" or "sdpa", got "${form}"`);
  if (combination !== "sum" && combination !== "mean") {
    throw new ConfigError(`model: combination must be "sum" or "mean", got "${combination}"`);
  }
  for (const settings of Object.values(config.mixerSettings ?? {})) checkMixerSettings(settings, config);
  mixers.forEach((_, layer) => {
    for (const settings of mixersOfLayer(config, layer)) checkMixerSettings(settings, config);
  });
  checkReusedKeys(config);
  if (feedForwards && feedForwards.length !== mixers.length) {
    throw new ConfigError(`model: feedForwards must have ${mixers.length} entries, got ${feedForwards.length}`);
  }
  const kinds = new Set(mixers.map((_, layer) => feedForwardOfLayer(config, layer)));
  for (const kind of kinds) {
    if (kind !== "dense" && kind !== "routed" && kind !== "none") {
      throw new ConfigError(`model: a feed-forward must be "dense", "routed" or "none", got "${kind}"`);
    }
    if (kind !== "none") expectCount("feedForwardWidth", config.feedForwardWidth, 1);
  }
  if (kinds.has("routed")) {
    expectCount("experts.count", experts?.count, 1);
    expectCount("experts.perToken", experts?.perToken, 1);
    if (experts && experts.perToken > experts.count) {
      throw new ConfigError(
        `model: ${experts.perToken} experts per token are more than the ${experts.count} there are`,
      );
    }
  }
  return config;
}

/** @throws ConfigError where keys are reused that no layer before has, or that are of another shape */
function checkReusedKeys(config: ModelConfig): void {
  let before: string | undefined;
  config.mixers.forEach((_, layer) => {
    for (const settings of mixersOfLayer(config, layer)) {
      if (settings.kind !== "attention") continue;
      const { keyValueHeads = config.heads, headWidth = config.width / config.heads, keyWidth = headWidth } = settings;
      const shape = `${keyValueHeads} heads of width ${keyWidth} and ${headWidth}`;
      if (settings.reuseKeys && shape !== before) {
        throw new ConfigError(
          `model: layer ${layer} reuses keys and values of ${shape}, but ${before ? `those before are ${before}` : "no layer before has any"}`,
        );
      }
      before = shape;
    }
  });
}

function expectCount(name: string, value: number | undefined, least: number, largest = most.size): void {
  if (value === undefined || !Number.isInteger(value) || value < least || value > largest) {
    throw new ConfigError(`model: ${name} must be a whole number from ${least} to ${largest}, got ${value}`);
  }
}
