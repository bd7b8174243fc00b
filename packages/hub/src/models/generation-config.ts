// Sampling defaults that travel with a model, as generation_config.json.

import { CheckpointError, checkSampling, type SamplingOptions } from "@sisa/core";

/** Defaults for generating; what is absent is up to the program that generates. */
export interface GenerationConfig extends SamplingOptions {
  /** Tokens to add at most. */
  readonly maxTokens?: number;
}

const jsonNames = {
  temperature: "temperature",
  topK: "top_k",
  topP: "top_p",
  maxTokens: "max_new_tokens",
} as const satisfies Record<keyof GenerationConfig, string>;

/** The object of generation_config.json, in the names that Hugging Face tools use. */
export function generationConfigToJson(config: GenerationConfig, endOfText: number | undefined): object {
  const fields = Object.entries(jsonNames).map(([name, json]) => [json, config[name as keyof typeof jsonNames]]);
  const { temperature } = config;
  return {
    ...(endOfText === undefined ? {} : { bos_token_id: endOfText, eos_token_id: endOfText }),
    ...(temperature === undefined ? {} : { do_sample: temperature > 0 }),
    ...Object.fromEntries(fields.filter(([, value]) => value !== undefined)),
  };
}

/**
 * Defaults from the object of a generation_config.json. Fields of other tools are left alone.
 * @throws CheckpointError where one of ours is not a number; ConfigError where it cannot be
 */
export function generationConfigFromJson(json: Readonly<Record<string, unknown>>, location: string): GenerationConfig {
  const fields: [string, number][] = [];
  for (const [name, jsonName] of Object.entries(jsonNames)) {
    const value = json[jsonName] ?? undefined;
    if (value === undefined) continue;
    if (typeof value !== "number") {
      throw new CheckpointError(`${location}: ${jsonName} must be a number, got ${JSON.stringify(value)}`);
    }
    fields.push([name, value]);
  }
  // Other tools say "greedy" by do_sample, whatever the temperature.
  if (json.do_sample === false) fields.push(["temperature", 0]);
  const config: GenerationConfig = Object.fromEntries(fields);
  checkSampling(config);
  return config;
}
