// Sizes with a name, and the solver that keeps parameter counts equal between families.

import { ConfigError } from "../errors.ts";
import { parameterCount } from "../layers/layer.ts";
import { checkLayerCount, checkModelConfig, type ModelConfig } from "./config.ts";
import { type Family, families, recipeOf, type TransformerSizes } from "./families.ts";
import { LanguageModel } from "./language-model.ts";

export type { Family } from "./families.ts";
/** Parameters by the name of a size. The three large ones are the paper's. */
export type PresetSize = "1m" | "5m" | "50m" | "152m" | "369m";

/** What may differ from a preset. `layers` is the number of layers; `mixers` names each layer's. */
export type PresetOverrides = Partial<ModelConfig> & {
  /** How many layers, with the mixers of the family. */
  readonly layers?: number;
};

// The paper's three sizes (arXiv:2606.02332, table of configurations), and two for CPUs.
const transformerSizes = {
  "1m": { width: 128, heads: 4, layers: 4, feedForwardWidth: 512 },
  "5m": { width: 256, heads: 4, layers: 4, feedForwardWidth: 1024 },
  "50m": { width: 512, heads: 8, layers: 6, feedForwardWidth: 2048 },
  "152m": { width: 768, heads: 12, layers: 12, feedForwardWidth: 3072 },
  "369m": { width: 1024, heads: 16, layers: 24, feedForwardWidth: 2944 },
} as const satisfies Record<PresetSize, TransformerSizes>;

/** Names of all sizes, smallest first. */
export const presetSizes: readonly PresetSize[] = /* @__PURE__ */ Object.keys(transformerSizes) as PresetSize[];

/** Names of all families, SISA first. */
export const presetFamilies: readonly Family[] = /* @__PURE__ */ Object.keys(families) as Family[];

/** Layers that the paper gives its state space models, all with N = 64. They are kept, and not quite as large. */
const paperLayers: { readonly [family: string]: { readonly [size: string]: number } } = {
  mamba2: { "50m": 14, "152m": 31, "369m": 49 },
  mamba3: { "50m": 14, "152m": 30, "369m": 48 },
};

/**
 * A model of a named size. Every family of a size has as many parameters as its Transformer: the feed-forward width is
 * solved for that, and where a family has none, the widths of its states. State space models have the paper's own sizes
 * where it gives them.
 *
 * @param overrides fields that differ; default none. With the one that is solved among them, nothing is solved
 * @throws ConfigError for a size, family or field that cannot be
 */
export function preset(family: Family, size: PresetSize, overrides: PresetOverrides = {}): ModelConfig {
  const sizes = Object.hasOwn(transformerSizes, size) ? transformerSizes[size] : undefined;
  if (sizes === undefined) {
    throw new ConfigError(`preset: expected a size of ${Object.keys(transformerSizes).join(", ")}, got "${size}"`);
  }
  if (!Object.hasOwn(families, family)) {
    throw new ConfigError(`preset: expected a family of ${Object.keys(families).join(", ")}, got "${family}"`);
  }
  const recipe = recipeOf(family);
  const { layers, ...changed } = overrides;
  if (layers !== undefined) checkLayerCount(layers);
  const shared = {
    vocabularySize: 50_277,
    width: sizes.width,
    heads: sizes.heads,
    feedForwardWidth: sizes.feedForwardWidth,
    stateWidth: 32,
    form: "exact",
    maximumLength: 2048,
    ropeBase: 10_000,
    normEpsilon: 1e-6,
  } as const;
  const make = (count: number): ModelConfig => ({
    ...shared,
    ...recipe.make({ ...sizes, ...changed }, count),
    ...changed,
  });
  const transformer = (count: number): ModelConfig => ({
    ...shared,
    ...pick(changed, ["vocabularySize", "width", "heads", "maximumLength"]),
    mixers: new Array<string>(count).fill("attention"),
  });

  if (recipe.solved === "feedForwardWidth") {
    const base = checkModelConfig(make(layers ?? sizes.layers));
    const isTarget = family === "transformer" && changed.mixers === undefined && changed.mixerSettings === undefined;
    if (changed.feedForwardWidth !== undefined || isTarget) return base;
    const target = parameterCountOf(transformer(base.mixers.length));
    return checkModelConfig({ ...base, feedForwardWidth: ffnWidthFor(base, target) });
  }
  const paper = paperLayers[family]?.[size];
  const isGiven = changed.stateWidth !== undefined || changed.mixers !== undefined || layers !== undefined;
  if (isGiven || paper !== undefined) return checkModelConfig(make(layers ?? paper ?? sizes.layers));
  return withStateWidths(make, recipe.unit ?? 1, parameterCountOf(transformer(sizes.layers)));
}

function pick<T extends object, K extends keyof T>(record: T, names: readonly K[]): Partial<Pick<T, K>> {
  const present = names.filter((name) => record[name] !== undefined);
  return Object.fromEntries(present.map((name) => [name, record[name]])) as Partial<Pick<T, K>>;
}

/**
 * As many layers as come nearest with states of the usual width, and then the widths that come nearest: some layers get a
 * unit more than the others.
 */
function withStateWidths(make: (layers: number) => ModelConfig, unit: number, target: number): ModelConfig {
  const [one, two] = [1, 2].map((layers) => parameterCountOf(make(layers))) as [number, number];
  const layers = Math.max(1, Math.round((target - one) / (two - one)) + 1);
  const base = make(layers);
  const [kind = "mamba2"] = base.mixers;
  const at = (stateWidth: number) => parameterCountOf({ ...base, stateWidth });
  // One unit more in one layer.
  const step = (at(2 * unit) - at(unit)) / layers;
  const units = Math.max(layers, Math.round((target - at(unit)) / step) + layers);
  const [least, more] = [Math.floor(units / layers), units % layers];
  const wider = `${kind}-wider`;
  return checkModelConfig({
    ...base,
    stateWidth: least * unit,
    ...(more === 0
      ? {}
      : {
          mixers: base.mixers.map((name, layer) => (layer < more ? wider : name)),
          mixerSettings: {
            ...base.mixerSettings,
            [wider]: { kind: kind as "mamba2" | "mamba3", stateWidth: (least + 1) * unit },
          },
        }),
  });
}

/** Number of parameters of a model. @throws ConfigError for a configuration that cannot be */
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
