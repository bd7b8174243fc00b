// Checkpoints of the paper and of mamba_ssm as models: weights from torch, configuration from what lies beside them or from their shapes.

import { checkModelConfig, languageModel } from "@sisa/core";
import type { Storage } from "../storage/storage.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { type ConfigHints, inferModelConfig } from "../torch/infer-config.ts";
import { openTorchCheckpoint, type TorchCheckpoint } from "../torch/torch-checkpoint.ts";
import { foreignModel } from "./foreign/foreign-model.ts";
import { mambaSsmConfig } from "./foreign/mamba-ssm.ts";
import {
  checkTokenizer,
  configurationFiles,
  type LoadedModel,
  readForeignParameters,
  readParameters,
} from "./model-folder.ts";

/** What a torch checkpoint does not say of itself. */
export interface ImportOptions extends ConfigHints {
  /** The checkpoint has none. The paper's models use that of GPT-NeoX. */
  readonly tokenizer: Tokenizer;
  /** Compare data with the archive's checksums; default true. */
  readonly verify?: boolean;
}

/**
 * Loads a checkpoint of the official training code or of mamba_ssm, or a state dictionary with their parameter names.
 * Nothing in the file is executed.
 *
 * @param options what shapes do not tell; what the checkpoint says itself is used where nothing is given
 * @throws CheckpointError where it is unsafe, damaged, or not such a model; ConfigError where the shapes make no model;
 *   StorageError where the file cannot be read
 */
export async function importTorchModel(storage: Storage, name: string, options: ImportOptions): Promise<LoadedModel> {
  const { tokenizer, verify = true, ...hints } = options;
  await using source = await openTorchCheckpoint(storage, name, { verify });
  const json = mambaSsmConfig(source.tensors, source.location);
  const foreign = json && foreignModel(json);
  const config = foreign
    ? checkModelConfig(foreign.config)
    : inferModelConfig(source.tensors, source.location, { ...savedHints(source), ...hints });
  checkTokenizer(tokenizer, config, source.location);
  const model = languageModel(config);
  return {
    model,
    parameters: foreign ? await readForeignParameters(source, model, foreign) : await readParameters(source, model),
    tokenizer,
    generationConfig: {},
    assets: { ...configurationFiles(config, tokenizer), ...tokenizer.files },
  };
}

/** Names of the official code's configuration. */
const savedNames = {
  heads: "n_head",
  maximumLength: "max_seq_len",
  ropeBase: "rope_theta",
  normEpsilon: "rms_eps",
} as const satisfies Partial<Record<keyof ConfigHints, string>>;

function savedHints(source: TorchCheckpoint): ConfigHints {
  const hints = Object.entries(savedNames).map(([hint, name]) => [hint, source.config.get(name)] as const);
  return Object.fromEntries(hints.filter(([, value]) => typeof value === "number"));
}
