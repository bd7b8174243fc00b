// Model folders in the form of Hugging Face: config.json, generation_config.json, model.safetensors or shards,
// tokenizer.json, tokenizer_config.json, README.md.

import {
  CheckpointError,
  ConfigError,
  checkModelConfig,
  type LanguageModel,
  languageModel,
  type ModelConfig,
  modelConfigFromJson,
  modelConfigToJson,
} from "@sisa/core";
import { jsonBytes, parseJsonObject } from "../json.ts";
import { openTensors, writeTensors } from "../safetensors/sharded.ts";
import type { TensorToWrite } from "../safetensors/write.ts";
import { readBytes, type Storage } from "../storage/storage.ts";
import { fromFloat32, type TensorSource, toFloat32 } from "../tensors.ts";
import { loadTokenizer } from "../tokenizers/json-tokenizer.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { openTorchCheckpoint } from "../torch/torch-checkpoint.ts";
import { type ForeignModel, foreignModel, foreignNames, fromForeign } from "./foreign/foreign-model.ts";
import { type GenerationConfig, generationConfigFromJson, generationConfigToJson } from "./generation-config.ts";
import { modelCard } from "./model-card.ts";

/** A model with all that is needed to run it. Can be spread into the options of `generate`. */
export interface LoadedModel {
  /** What computes the logits, from the folder's configuration. */
  readonly model: LanguageModel;
  /** By the model's parameter names, row major. */
  readonly parameters: { readonly [name: string]: Float32Array };
  /** The folder's own, or the one that was given. */
  readonly tokenizer: Tokenizer;
  /** How the model's makers sample; empty where the folder says nothing. */
  readonly generationConfig: GenerationConfig;
  /** Files that go along where the model is exported: configuration and tokenizer, by name. */
  readonly assets: Readonly<Record<string, Uint8Array>>;
}

/** What replaces or checks parts of the folder. */
export interface LoadOptions {
  /** Used in place of the folder's own. Default: that of tokenizer.json. */
  readonly tokenizer?: Tokenizer;
  /** Compare data with the checksums that files of ours carry; default true. */
  readonly verify?: boolean;
}

/** What a folder is written from. */
export interface ModelToSave {
  /** Written as config.json. */
  readonly config: ModelConfig;
  /** All parameters of the model. A function is called when its turn has come, once. */
  readonly parameters: { readonly [name: string]: ParameterData };
  /** Left out, the folder has no tokenizer, and one has to be given when it is loaded. */
  readonly tokenizer?: Tokenizer;
  /** Written as generation_config.json. */
  readonly generationConfig?: GenerationConfig;
}

/** Row major; or a function that gives it when its turn has come, so that only one is in memory. */
export type ParameterData = Float32Array | (() => Float32Array | Promise<Float32Array>);

/** How weights are written. */
export interface SaveOptions {
  /** Of matrices; default float32. Norms, biases and other vectors stay float32. */
  readonly dtype?: "float32" | "float16" | "bfloat16";
  /** Bytes of a weight file, which holds as many tensors as fit, but at least one; default 5e9. */
  readonly maximumShardBytes?: number;
}

const assetNames = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
];

/**
 * Reads a model folder.
 *
 * @throws CheckpointError in one line: no model there, a damaged file, parameters that are missing, left over or of
 *   another shape, a tokenizer that does not match; StorageError where a file cannot be read
 */
export async function loadModelFolder(storage: Storage, options: LoadOptions = {}): Promise<LoadedModel> {
  const assets: Record<string, Uint8Array> = {};
  for (const name of assetNames) {
    if ((await storage.size(name)) !== undefined) assets[name] = await readBytes(storage, name);
  }
  const { config, foreign } = readConfig(assets, storage.location);
  const generationFile = assets["generation_config.json"];
  const generationLocation = `${storage.location}/generation_config.json`;
  const generationConfig =
    generationFile === undefined
      ? {}
      : generationConfigFromJson(parseJsonObject(generationFile, generationLocation), generationLocation);
  const tokenizer = options.tokenizer ?? (await loadTokenizer(storage));
  checkTokenizer(tokenizer, config, storage.location);
  const model = languageModel(config);
  await using source = await openWeights(storage, options);
  const parameters = foreign
    ? await readForeignParameters(source, model, foreign)
    : await readParameters(source, model);
  const written = configurationFiles(config, tokenizer);
  const own = foreign ? { "config.json": written["config.json"] } : {};
  return {
    model,
    parameters,
    tokenizer,
    generationConfig,
    assets: { ...written, ...assets, ...own, ...options.tokenizer?.files },
  };
}

/** Weights in safetensors, or else in the one file that torch.save writes for older models. */
async function openWeights(storage: Storage, options: LoadOptions): Promise<TensorSource> {
  const names = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
  const sizes = await Promise.all(names.map((name) => storage.size(name)));
  const isTorch = sizes.findIndex((size) => size !== undefined) === 2;
  return isTorch ? openTorchCheckpoint(storage, "pytorch_model.bin", options) : openTensors(storage, options);
}

/**
 * Writes a model folder: config.json, generation_config.json, the tokenizer's files, a README.md where there is none,
 * and weights last. Files of an earlier save are replaced one by one, each whole or not at all.
 *
 * @throws CheckpointError where parameters are missing or left over, or the tokenizer is of another vocabulary;
 *   ShapeError where one is of another size; ConfigError for a configuration that cannot be; StorageError where there
 *   is no room
 */
export async function saveModelFolder(storage: Storage, saved: ModelToSave, options: SaveOptions = {}): Promise<void> {
  const { config, tokenizer } = saved;
  const dtype = options.dtype ?? "float32";
  const model = languageModel(config);
  checkNames(new Set(Object.keys(saved.parameters)), new Set(Object.keys(model.parameters)), "saveModel");
  if (tokenizer !== undefined) checkTokenizer(tokenizer, config, "saveModel");

  const files: Record<string, Uint8Array> = {
    ...configurationFiles(config, tokenizer, saved.generationConfig, { torch_dtype: dtype }),
    ...tokenizer?.files,
  };
  if ((await storage.size("README.md")) === undefined) {
    files["README.md"] = new TextEncoder().encode(modelCard(config));
  }
  for (const [name, content] of Object.entries(files)) await storage.write(name, content);
  await writeTensors(storage, tensorsOf(model, saved.parameters, dtype), {
    // transformers asks for this key.
    metadata: { format: "pt" },
    ...(options.maximumShardBytes === undefined ? {} : { maximumShardBytes: options.maximumShardBytes }),
  });
}

/**
 * The parameters of a model from any source of tensors, as float32, row major, by the model's names.
 * @throws CheckpointError where they are missing, left over or of another shape
 */
export async function readParameters(
  source: TensorSource,
  model: LanguageModel,
): Promise<Record<string, Float32Array>> {
  checkNames(new Set(source.tensors.keys()), new Set(Object.keys(model.parameters)), source.location);
  for (const [name, { shape }] of Object.entries(model.parameters)) {
    const found = source.tensors.get(name)?.shape ?? [];
    if (found.length !== shape.length || found.some((size, axis) => size !== shape[axis])) {
      throw new CheckpointError(
        `${source.location}: expected ${name} of shape [${shape}], got [${found}]; the weights are of another model than the configuration`,
      );
    }
  }
  const parameters: Record<string, Float32Array> = {};
  for (const name of Object.keys(model.parameters)) {
    parameters[name] = toFloat32(await source.read(name), `${source.location}: ${name}`);
  }
  return parameters;
}

/**
 * The parameters of a model from a source in the names of other code.
 * @throws CheckpointError where they are missing, left over or of another size
 */
export async function readForeignParameters(
  source: TensorSource,
  model: LanguageModel,
  foreign: ForeignModel,
): Promise<Record<string, Float32Array>> {
  const names = new Set(source.tensors.keys());
  // A head that is the embedding may be written a second time.
  if (model.config.tiedHead !== false) names.delete("lm_head.weight");
  checkNames(names, foreignNames(foreign, model), source.location);
  const parameters: Record<string, Float32Array> = {};
  for (const [name, { shape }] of Object.entries(model.parameters)) {
    const tensor = foreign.tensorFor(name);
    const parts: Float32Array[] = [];
    for (const part of tensor.names) parts.push(toFloat32(await source.read(part), `${source.location}: ${part}`));
    const values = parts.length === 1 && parts[0] ? parts[0] : joined(parts);
    const [rows = 1, ...inner] = shape;
    const size = inner.reduce((a, b) => a * b, tensor.rows ?? rows);
    if (values.length !== size) {
      throw new CheckpointError(
        `${source.location}: expected ${size} elements of ${tensor.names.join(", ")} for ${name} [${shape}], got ${values.length}; the weights are of another model than the configuration`,
      );
    }
    parameters[name] = fromForeign(tensor, values, shape);
  }
  return parameters;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const result = new Float32Array(parts.reduce((total, { length }) => total + length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

/**
 * Checks that a tokenizer is a model's. A model's rows of the vocabulary may exceed its tokenizer's by what padding to
 * a multiple of up to 128 adds.
 *
 * @param location for messages
 * @throws CheckpointError where tokenizer and vocabulary cannot belong together
 */
export function checkTokenizer(tokenizer: Tokenizer, config: ModelConfig, location: string): void {
  const { size } = tokenizer;
  const { vocabularySize } = config;
  const isPadded = [2, 4, 8, 16, 32, 64, 128].some(
    (multiple) => Math.ceil(size / multiple) * multiple === vocabularySize,
  );
  if (size !== vocabularySize && !isPadded) {
    throw new CheckpointError(
      `${location}: the tokenizer has ${size} tokens, the model a vocabulary of ${vocabularySize}; they do not belong together`,
    );
  }
}

function readConfig(
  assets: Readonly<Record<string, Uint8Array>>,
  location: string,
): { readonly config: ModelConfig; readonly foreign?: ForeignModel } {
  const file = assets["config.json"];
  if (file === undefined) {
    throw new CheckpointError(`${location}: expected a model folder; there is no config.json`);
  }
  try {
    const json = parseJsonObject(file, `${location}/config.json`);
    const foreign = foreignModel(json);
    return foreign ? { config: checkModelConfig(foreign.config), foreign } : { config: modelConfigFromJson(json) };
  } catch (error) {
    // The message names the field, not the folder.
    if (ConfigError.isInstance(error)) throw new CheckpointError(`${location}/${error.message}`, { cause: error });
    throw error;
  }
}

function checkNames(names: ReadonlySet<string>, expected: ReadonlySet<string>, location: string): void {
  const missing = [...expected].filter((name) => !names.has(name));
  const leftOver = [...names].filter((name) => !expected.has(name));
  const some = (list: readonly string[]): string =>
    list.length > 3 ? `${list.slice(0, 3).join(", ")} and ${list.length - 3} more` : list.join(", ");
  if (missing.length > 0) throw new CheckpointError(`${location}: parameters are missing: ${some(missing)}`);
  if (leftOver.length > 0) {
    throw new CheckpointError(`${location}: parameters that the model does not have: ${some(leftOver)}`);
  }
}

/** config.json and generation_config.json of a model. */
export function configurationFiles(
  config: ModelConfig,
  tokenizer: Tokenizer | undefined,
  generationConfig: GenerationConfig = {},
  others: object = {},
): { readonly [N in "config.json" | "generation_config.json"]: Uint8Array } {
  const endOfText = tokenizer?.endOfText;
  const tokenIds = endOfText === undefined ? {} : { bos_token_id: endOfText, eos_token_id: endOfText };
  return {
    "config.json": jsonBytes({ ...modelConfigToJson(config), ...tokenIds, ...others }),
    "generation_config.json": jsonBytes(generationConfigToJson(generationConfig, endOfText)),
  };
}

function tensorsOf(
  model: LanguageModel,
  parameters: ModelToSave["parameters"],
  dtype: "float32" | "float16" | "bfloat16",
): Record<string, TensorToWrite> {
  const tensors: Record<string, TensorToWrite> = {};
  for (const [name, { shape }] of Object.entries(model.parameters)) {
    const data = parameters[name];
    if (data === undefined) continue;
    const stored = shape.length > 1 ? dtype : "float32";
    const read = async () => fromFloat32(typeof data === "function" ? await data() : data, stored);
    tensors[name] = { dtype: stored, shape, data: read };
  }
  return tensors;
}
