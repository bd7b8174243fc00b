// The configuration of `sisa train`: the settings of a run, and where its model, data and results lie.
// JSON, a typed object, and command-line words all become this one form.
import {
  ConfigError,
  checkModelConfig,
  type Family,
  type ModelConfig,
  type Precision,
  type PresetOverrides,
  type PresetSize,
  precisions,
  preset,
  presetFamilies,
  presetSizes,
} from "@sisa/core";
import { boolean, choice, custom, type Given, integer, jsonOrWord, number, type Parsed, text } from "./field.ts";
import { loopFields, refuseConflicts, sequenceLengthField } from "./settings.ts";
import { isRecord, mergeConfig, nearestPath, overridesFromText, parseTable, shown, tableHelp } from "./table.ts";

/** A model by the name of its preset, with overrides: `{ preset: "sisa", size: "50m", stateWidth: 16 }`. */
export type PresetChoice = {
  /** The family. */
  readonly preset: Family;
  /** Its size by name. */
  readonly size: PresetSize;
} & PresetOverrides;

/** The fields of a configuration file. The one table behind validation, overrides, help and types. */
export const configFields = {
  model: custom<ModelConfig | PresetChoice>(
    'a model: what preset() returns, or { "preset": "sisa", "size": "5m" } with overrides',
    (value) => (isRecord(value) ? (value as unknown as ModelConfig | PresetChoice) : undefined),
    { description: "The model. On the command line by field: --model.preset sisa --model.size 5m." },
  ),
  data: {
    text: text({ description: "Text file, or folder of text files, to train on." }),
    shards: text({ description: "Folder of token shards written by `sisa prepare`; instead of text." }),
    synthetic: choice(["mqar", "parity"], {
      description: "Sequences made by rule, each sequenceLength long: associative recall, or parity; instead of text.",
    }),
    vocabularySize: integer({
      minimum: 2,
      derived: "256 for mqar, 2 for parity",
      description: "Token ids of synthetic sequences.",
    }),
    tokenizer: text({
      default: "byte",
      description: '"byte", or a tokenizer.json; shards bring their own.',
    }),
    sequenceLength: sequenceLengthField,
    heldOutFraction: number({
      above: 0,
      below: 1,
      default: 0.05,
      description: "Part of the text that is held out; shards were split when they were written.",
    }),
  },
  ...loopFields,
  backend: text({ default: "onnxruntime", description: "What runs the model; `sisa doctor` lists what is there." }),
  threads: integer({
    minimum: 1,
    derived: "one for each core",
    description: "Threads of backend onnxruntime.",
  }),
  precision: choice(precisions, {
    default: "float32",
    description:
      "float32; bfloat16, products and activations, with float32 parameters, norms and sums; paper, in which parameters " +
      "and moments are rounded to bfloat16 too, as in the paper's code. Those two need backend cuda. float16, as bfloat16 " +
      "with a scaled loss, needs backend webgpu and a GPU with shader-f16.",
  }),
  output: text({ default: "runs", description: "Folder for checkpoints, metrics and the report." }),
  resume: custom<boolean | string>(
    "true, false, auto, or the path of a checkpoint",
    (value) => (typeof value === "boolean" || (typeof value === "string" && value !== "") ? value : undefined),
    {
      default: false,
      description: "Go on from a checkpoint: true asks for one, auto starts anew where there is none.",
    },
  ),
  tensorboard: boolean({ default: false, description: "Write TensorBoard event files too." }),
  report: boolean({ default: true, description: "Write report.html at the end." }),
};

/** What a configuration file may hold. */
export type TrainingConfigInput = Given<typeof configFields>;

/** A checked configuration. Values that follow from others are filled in by `resolveSettings`. */
export type TrainingConfig = Parsed<typeof configFields>;

/**
 * Checks a configuration and fills in its defaults.
 *
 * @throws ConfigError one line: an unknown field with the nearest one, a wrong value, or two fields that conflict
 */
export function parseTrainingConfig(value: unknown): TrainingConfig {
  const config = parseTable(configFields, value);
  refuseConflicts(config);
  const { data } = config;
  const sources = (["text", "shards", "synthetic"] as const).filter((name) => data[name] !== undefined);
  if (sources.length > 1) {
    const names = sources.map((name) => `data.${name}`).join(" and ");
    throw new ConfigError(`${names} contradict each other: both say what to train on; give one`);
  }
  if (data.vocabularySize !== undefined && data.synthetic === undefined) {
    throw new ConfigError("data.vocabularySize is for data.synthetic; text and shards have that of their tokenizer");
  }
  checkPrecision(config.backend, config.precision);
  if (data.shards !== undefined && data.tokenizer !== configFields.data.tokenizer.default) {
    throw new ConfigError("data.tokenizer and data.shards contradict each other: shards bring their own tokenizer");
  }
  return config;
}

/** Checks that a backend computes in a precision. @throws ConfigError saying in which it does */
export function checkPrecision(backend: string, precision: Precision): void {
  const [kind = ""] = backend.split(":");
  const own = { cuda: ["bfloat16", "paper"], webgpu: ["float16"] }[kind] ?? [];
  if (precision === "float32" || own.includes(precision)) return;
  const what = own.length === 0 ? "in float32 only" : `in float32 and ${own.join(" and ")}`;
  throw new ConfigError(`precision ${precision} and backend ${backend} contradict each other: it computes ${what}`);
}

/**
 * A configuration with command-line words laid over it, not yet checked.
 *
 * @param words `["steps", "2000"]`, `["optimizer.learning-rate", "1e-3"]`, or flat: `["learning-rate", "1e-3"]`
 * @throws ConfigError for a word that is no field
 */
export function withOverrides(config: unknown, words: readonly (readonly [name: string, text: string])[]): unknown {
  return mergeConfig(
    config,
    overridesFromText(configFields, words, { model: { fields: presetFields, fromText: jsonOrWord } }),
  );
}

/** Fields of a complete model, and whether it must have them; a preset takes them as overrides. */
const modelFields: { readonly [N in keyof Required<ModelConfig>]: boolean } = {
  mixers: true,
  vocabularySize: true,
  width: true,
  heads: true,
  feedForwardWidth: true,
  stateWidth: true,
  form: true,
  maximumLength: true,
  ropeBase: true,
  normEpsilon: true,
  mixerSettings: false,
  combination: false,
  feedForwards: false,
  experts: false,
  metaTokens: false,
  tiedHead: false,
};

const presetFields = [...Object.keys(modelFields), "preset", "size", "layers"];

/**
 * The model that a configuration names.
 *
 * @param vocabularySize size of the tokenizer, for a preset that does not give one
 * @throws ConfigError unknown or missing fields, and sizes that cannot be
 */
export function modelConfigOf(choice: ModelConfig | PresetChoice, vocabularySize: number): ModelConfig {
  const isPreset = "preset" in choice || "size" in choice;
  const allowed = isPreset ? presetFields : Object.keys(modelFields);
  for (const name of Object.keys(choice)) {
    if (allowed.includes(name)) continue;
    const nearest = nearestPath(name, allowed);
    const hint = nearest === undefined ? "" : `; did you mean "model.${nearest}"?`;
    throw new ConfigError(`"model.${name}" is not a field of the configuration${hint}`);
  }
  if (isPreset) {
    for (const [name, known] of Object.entries({ preset: presetFamilies, size: presetSizes })) {
      const given: unknown = (choice as Partial<PresetChoice>)[name as "preset" | "size"];
      if ((known as readonly unknown[]).includes(given)) continue;
      throw new ConfigError(`model.${name}: expected one of ${known.join(", ")}, got ${shown(given)}`);
    }
    const { preset: family, size, ...overrides } = choice as PresetChoice;
    return preset(family, size, { vocabularySize, ...overrides });
  }
  const missing = Object.entries(modelFields).find(([name, isNeeded]) => isNeeded && !(name in choice));
  if (missing !== undefined) {
    throw new ConfigError(`model.${missing[0]}: expected a value, got ${shown(undefined)}; give it, or name a preset`);
  }
  return checkModelConfig(choice as ModelConfig);
}

/** The part of a configuration that `train` and `resolveSettings` take. */
export function settingsOf(config: TrainingConfig): Record<string, unknown> {
  const names = Object.keys(loopFields);
  const loop = Object.fromEntries(Object.entries(config).filter(([name]) => names.includes(name)));
  return { ...loop, sequenceLength: config.data.sequenceLength };
}

/** Help for every field, for `sisa train --help`. */
export function configHelp(): string {
  return tableHelp(configFields);
}
