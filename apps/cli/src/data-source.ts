// The data that a configuration names.
import { resolve } from "node:path";
import { ConfigError } from "@sisa/core";
import { syntheticData, syntheticVocabulary, type TrainingConfig, type TrainingData, tokenShards } from "@sisa/train";
import { textFiles } from "@sisa/train/node";
import { openTokenizer } from "./model-source.ts";

/**
 * Reads the text or opens the shards.
 * @param data the `data` part of a configuration; relative paths start from `cwd`
 * @throws ConfigError where nothing is named; DataError where it cannot be used
 */
export async function openTrainingData(data: TrainingConfig["data"], cwd: string): Promise<TrainingData> {
  if (data.text !== undefined) {
    const tokenizer = await openTokenizer(data.tokenizer, cwd);
    return await textFiles(resolve(cwd, data.text), tokenizer, { heldOutFraction: data.heldOutFraction });
  }
  if (data.synthetic !== undefined) {
    const { synthetic: kind, sequenceLength: length, vocabularySize = syntheticVocabulary[kind] } = data;
    return syntheticData({ kind, length, vocabularySize });
  }
  if (data.shards !== undefined) return await tokenShards(resolve(cwd, data.shards));
  throw new ConfigError(
    "data: expected text, shards or synthetic, got none; say what to train on: --data.text FILE_OR_FOLDER, --data.shards " +
      "FOLDER, or --data.synthetic mqar",
  );
}

/** The same with absolute paths, to be found again from any folder. */
export function withAbsolutePaths(config: TrainingConfig, cwd: string): TrainingConfig {
  const { text, shards, tokenizer } = config.data;
  return {
    ...config,
    data: {
      ...config.data,
      ...(text === undefined ? {} : { text: resolve(cwd, text) }),
      ...(shards === undefined ? {} : { shards: resolve(cwd, shards) }),
      tokenizer: tokenizer === "byte" ? tokenizer : resolve(cwd, tokenizer),
    },
  };
}
