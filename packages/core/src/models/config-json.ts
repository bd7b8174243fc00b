// The config.json form of a model's configuration, in the names that Hugging Face tools use.

import { ConfigError } from "../errors.ts";
import { checkModelConfig, type ModelConfig } from "./config.ts";

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

/** Fields that are left out of the file where the model leaves them out. */
const optionalNames = {
  mixerSettings: "mixer_settings",
  combination: "mixer_combination",
  feedForwards: "mlp_layer_types",
  experts: "experts",
  metaTokens: "num_meta_tokens",
} as const;

/** The object of config.json. */
export function modelConfigToJson(config: ModelConfig): Record<string, unknown> {
  const fields = Object.entries(jsonNames).map(([name, json]) => [json, config[name as keyof typeof jsonNames]]);
  const options = Object.entries(optionalNames).flatMap(([name, json]) => {
    const value = config[name as keyof typeof optionalNames];
    return value === undefined ? [] : [[json, renamed(name, value, snakeCase)]];
  });
  return {
    architectures: ["SisaForCausalLM"],
    model_type: "sisa",
    ...Object.fromEntries(fields),
    num_hidden_layers: config.mixers.length,
    layer_types: [...config.mixers],
    sisa_form: config.form,
    ...Object.fromEntries(options),
    hidden_act: "silu",
    tie_word_embeddings: config.tiedHead ?? true,
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
  const tied = json.tie_word_embeddings;
  if (typeof tied !== "boolean") {
    throw new ConfigError(`config.json: tie_word_embeddings must be true or false, got ${JSON.stringify(tied)}`);
  }
  const number = (name: string): number => {
    const value = json[name];
    if (typeof value !== "number")
      throw new ConfigError(`config.json: ${name} must be a number, got ${JSON.stringify(value)}`);
    return value;
  };
  const numbers = Object.entries(jsonNames).map(([name, field]) => [name, number(field)]);
  const options = Object.entries(optionalNames).flatMap(([name, field]) =>
    json[field] === undefined ? [] : [[name, renamed(name, json[field], camelCase)]],
  );
  const mixers = json.layer_types;
  if (!Array.isArray(mixers) || mixers.length !== number("num_hidden_layers")) {
    throw new ConfigError(
      `config.json: layer_types must list ${json.num_hidden_layers} layers, got ${JSON.stringify(mixers)}`,
    );
  }
  return checkModelConfig({
    mixers,
    ...Object.fromEntries(numbers),
    form: json.sisa_form,
    ...Object.fromEntries(options),
    ...(tied ? {} : { tiedHead: false }),
  } as ModelConfig);
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** The value of an option, with the fields of its objects renamed. Mixers keep the names that the user gave them. */
function renamed(option: string, value: unknown, rename: (name: string) => string): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value);
  if (option === "mixerSettings") {
    return Object.fromEntries(entries.map(([name, settings]) => [name, renamed("", settings, rename)]));
  }
  return Object.fromEntries(entries.map(([name, entry]) => [rename(name), entry]));
}
