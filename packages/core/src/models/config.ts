// What a language model is made of, its checks, and its config.json form.

import { ConfigError } from "../errors.ts";
import type { SisaForm } from "../ops/sisa-attention.ts";

/** How the tokens of a layer see each other. */
export type MixerKind = "sisa" | "attention";

/** Everything that decides a model's parameters and what it computes. */
export interface ModelConfig {
  /** One mixer per layer: all `attention` is a Transformer, all `sisa` a SISA model. */
  readonly mixers: readonly MixerKind[];
  /** V */
  readonly vocabularySize: number;
  /** M */
  readonly width: number;
  /** H; the head width is width / heads, and even */
  readonly heads: number;
  /** F */
  readonly feedForwardWidth: number;
  /** S, for SISA layers; even */
  readonly stateWidth: number;
  /** Form of SISA layers in a full pass. */
  readonly form: SisaForm;
  /** Positions that the rotary table covers. */
  readonly maximumLength: number;
  readonly ropeBase: number;
  readonly normEpsilon: number;
}

/** Sizes above these fit no memory, and would take down a program that tries. */
const most = { size: 2 ** 31 - 1, layers: 10_000, positions: 2 ** 24 };

/** @throws ConfigError unless it is a number of layers that a model can have */
export function checkLayerCount(layers: number): void {
  if (Number.isInteger(layers) && layers >= 1 && layers <= most.layers) return;
  throw new ConfigError(`model: layers must be a whole number from 1 to ${most.layers}, got ${layers}`);
}

/** @throws ConfigError naming the first field that cannot be */
export function checkModelConfig(config: ModelConfig): ModelConfig {
  const { mixers, width, heads, stateWidth, form } = config;
  const counts = ["vocabularySize", "width", "heads", "feedForwardWidth", "stateWidth", "maximumLength"] as const;
  for (const name of counts) {
    const value = config[name];
    const largest = name === "maximumLength" ? most.positions : most.size;
    if (!Number.isInteger(value) || value < 1 || value > largest) {
      throw new ConfigError(`model: ${name} must be a whole number from 1 to ${largest}, got ${value}`);
    }
  }
  for (const name of ["ropeBase", "normEpsilon"] as const) {
    if (!(config[name] > 0)) throw new ConfigError(`model: ${name} must be > 0, got ${config[name]}`);
  }
  if (!Array.isArray(mixers)) throw new ConfigError(`model: mixers must be a list, got ${JSON.stringify(mixers)}`);
  checkLayerCount(mixers.length);
  for (const mixer of mixers) {
    if (mixer !== "sisa" && mixer !== "attention") {
      throw new ConfigError(`model: a mixer must be "sisa" or "attention", got "${mixer}"`);
    }
  }
  if (width % heads !== 0)
    throw new ConfigError(`model: heads must divide width, got heads ${heads} and width ${width}`);
  if ((width / heads) % 2 !== 0) {
    throw new ConfigError(
      `model: width / heads must be even for rotary positions, got ${width} / ${heads} = ${width / heads}`,
    );
  }
  if (mixers.includes("sisa") && stateWidth % 2 !== 0) {
    throw new ConfigError(`model: stateWidth must be even, since its channels rotate in pairs; got ${stateWidth}`);
  }
  if (form !== "exact" && form !== "sdpa")
    throw new ConfigError(`model: form must be "exact" or "sdpa", got "${form}"`);
  return config;
}

const jsonNames = {
  vocabularySize: "vocab_size",
  width: "hidden_size",
  heads: "num_attention_heads",
  feedForwardWidth: "intermediate_size",
  stateWidth: "state_size",
  maximumLength: "max_position_embeddings",
  ropeBase: "rope_theta",
  normEpsilon: "rms_norm_eps",
} as const;

/** The object of config.json, in the names that Hugging Face tools use. */
export function modelConfigToJson(config: ModelConfig): Record<string, unknown> {
  const fields = Object.entries(jsonNames).map(([name, json]) => [json, config[name as keyof typeof jsonNames]]);
  return {
    architectures: ["SisaForCausalLM"],
    model_type: "sisa",
    ...Object.fromEntries(fields),
    num_hidden_layers: config.mixers.length,
    layer_types: [...config.mixers],
    sisa_form: config.form,
    hidden_act: "silu",
    tie_word_embeddings: true,
    torch_dtype: "float32",
  };
}

/**
 * The model that a config.json describes. Fields of other tools are left alone.
 * @throws ConfigError where a field is missing or impossible
 */
export function modelConfigFromJson(json: Readonly<Record<string, unknown>>): ModelConfig {
  if (json.model_type !== "sisa") {
    throw new ConfigError(`config.json: expected model_type "sisa", got ${JSON.stringify(json.model_type)}`);
  }
  if (json.tie_word_embeddings !== true) {
    throw new ConfigError(
      "config.json: expected tie_word_embeddings true; models with a head of their own are not known",
    );
  }
  const number = (name: string): number => {
    const value = json[name];
    if (typeof value !== "number")
      throw new ConfigError(`config.json: ${name} must be a number, got ${JSON.stringify(value)}`);
    return value;
  };
  const numbers = Object.entries(jsonNames).map(([name, field]) => [name, number(field)]);
  const mixers = json.layer_types;
  if (!Array.isArray(mixers) || mixers.length !== number("num_hidden_layers")) {
    throw new ConfigError(
      `config.json: layer_types must list ${json.num_hidden_layers} layers, got ${JSON.stringify(mixers)}`,
    );
  }
  return checkModelConfig({ ...Object.fromEntries(numbers), mixers, form: json.sisa_form } as ModelConfig);
}
