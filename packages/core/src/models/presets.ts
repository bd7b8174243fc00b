// Sizes with a name, and the solver that keeps parameter counts equal between families.

import { ConfigError } from "../errors.ts";
import { parameterCount } from "../layers/layer.ts";
import { checkLayerCount, checkModelConfig, type ModelConfig } from "./config.ts";
import { LanguageModel } from "./language-model.ts";
import type { MixerKind } from "./mixers.ts";

export type Family = "sisa" | "transformer";
export type PresetSize = "1m" | "5m" | "50m" | "152m" | "369m";

/** What may differ from a preset. `layers` repeats the family's mixer; `mixers` names each layer's. */
export type PresetOverrides = Partial<ModelConfig> & { readonly layers?: number };

// The paper's three sizes (arXiv:2606.02332, table of configurations), and two for CPUs.
const transformerSizes = {
  "1m": { width: 128, heads: 4, layers: 4, feedForwardWidth: 512 },
  "5m": { width: 256, heads: 4, layers: 4, feedForwardWidth: 1024 },
  "50m": { width: 512, heads: 8, layers: 6, feedForwardWidth: 2048 },
  "152m": { width: 768, heads: 12, layers: 12, feedForwardWidth: 3072 },
  "369m": { width: 1024, heads: 16, layers: 24, feedForwardWidth: 2944 },
} as const satisfies Record<PresetSize, object>;

const familyMixers = { sisa: "sisa", transformer: "attention" } as const satisfies Record<Family, MixerKind>;

/**
 * A model of a named size. Every family of a size has as many parameters as its Transformer: where something else than
 * the feed-forward width is changed, that width is solved again.
 *
 * @param overrides fields that differ; with `feedForwardWidth` among them nothing is solved
 * @throws ConfigError
 */
export function preset(family: Family, size: PresetSize, overrides: PresetOverrides = {}): ModelConfig {
  const sizes = transformerSizes[size];
  const mixer = familyMixers[family];
  if (sizes === undefined) {
    throw new ConfigError(`preset: expected a size of ${Object.keys(transformerSizes).join(", ")}, got "${size}"`);
  }
  if (mixer === undefined) {
    throw new ConfigError(`preset: expected a family of ${Object.keys(familyMixers).join(", ")}, got "${family}"`);
  }
  const { layers = sizes.layers, ...changed } = overrides;
  checkLayerCount(layers);
  const base: ModelConfig = {
    mixers: new Array<MixerKind>(layers).fill(mixer),
    vocabularySize: 50_277,
    width: sizes.width,
    heads: sizes.heads,
    feedForwardWidth: sizes.feedForwardWidth,
    stateWidth: 32,
    form: "exact",
    maximumLength: 2048,
    ropeBase: 10_000,
    normEpsilon: 1e-6,
    ...changed,
  };
  if (changed.feedForwardWidth !== undefined || base.mixers.every((kind) => kind === "attention")) {
    return checkModelConfig(base);
  }
  const transformer = { ...base, mixers: base.mixers.map(() => "attention" as const) };
  return { ...base, feedForwardWidth: ffnWidthFor(base, parameterCountOf(transformer)) };
}

/** Number of parameters of a model, without building one. */
export function parameterCountOf(config: ModelConfig): number {
  return parameterCount(new LanguageModel(config));
}

/**
 * The feed-forward width that brings a model nearest to a number of parameters.
 * @throws ConfigError where even a width of 1 has too many
 */
export function ffnWidthFor(config: ModelConfig, parameters: number): number {
  const at = (feedForwardWidth: number) => parameterCountOf({ ...config, feedForwardWidth });
  const slope = at(2) - at(1);
  const width = Math.round((parameters - at(1)) / slope) + 1;
  if (width < 1) {
    throw new ConfigError(
      `ffnWidthFor: ${parameters} parameters are too few; without feed-forward there are ${at(1) - slope}`,
    );
  }
  return width;
}
