// Token shards, as `sisa prepare` writes them, as training data.

import { CheckpointError } from "@sisa/core";
import { openTokenShards, type Storage, type Tokenizer } from "@sisa/hub";
import { folderAt } from "#paths";
import type { TrainingData } from "./training-data.ts";

/**
 * Training data from a folder of token shards, read piece by piece. The held-out part is the one the shards were split
 * into when they were written; their tokenizer is taken from beside them where it is kept there.
 *
 * @param place a path where there is a file system, or a storage
 * @throws DataError where there are no shards, or files are missing or cut short
 */
export async function tokenShards(place: string | Storage): Promise<TrainingData> {
  const storage = typeof place === "string" ? folderAt(place).storage : place;
  const shards = await openTokenShards(storage);
  const { train: training, heldOut, index, fingerprint, location } = shards;
  let tokenizer: Tokenizer | undefined;
  try {
    tokenizer = index.tokenizer.fingerprint === null ? undefined : await shards.tokenizer();
  } catch (error) {
    // Training works without: only samples and the tokenizer of saved models are lacking then.
    if (!CheckpointError.isInstance(error)) throw error;
  }
  return {
    training,
    heldOut,
    vocabularySize: index.tokenizer.size,
    ...(tokenizer === undefined ? {} : { tokenizer }),
    ...(heldOut.length > 0 ? { bytesPerToken: heldOut.bytes / heldOut.length } : {}),
    fingerprint,
    description: {
      name: location,
      documents: training.documents + heldOut.documents,
      split: "stored",
      skippedFiles: 0,
    },
  };
}
