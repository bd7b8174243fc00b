// Models from files that a person picked or dropped: model folders, and the paper's checkpoints.

import { byteTokenizer, filesStorage, importTorchModel, type LoadedModel, loadModel, loadTokenizer } from "@sisa/hub";

const torchFile = /\.(pt|pth|ckpt|bin)$/;

/** @throws CheckpointError; Error where the files are no model */
export async function openModelFiles(files: readonly File[]): Promise<LoadedModel> {
  const storage = filesStorage(files);
  const names = await storage.list();
  if (names.includes("config.json")) return await loadModel(storage);
  const [checkpoint, ...others] = names.filter((name) => torchFile.test(name));
  if (checkpoint === undefined) {
    throw new Error(
      `Expected a model folder (config.json, model.safetensors, tokenizer.json) or a checkpoint (.pt), got ${names.join(", ") || "nothing"}.`,
    );
  }
  if (others.length > 0) throw new Error(`Expected one checkpoint, got ${[checkpoint, ...others].join(", ")}.`);
  const hasTokenizer = names.includes("tokenizer.json");
  const tokenizer = hasTokenizer ? await loadTokenizer(storage) : byteTokenizer();
  try {
    return await importTorchModel(storage, checkpoint, { tokenizer });
  } catch (error) {
    if (hasTokenizer || !(error instanceof Error) || !error.message.includes("tokenizer")) throw error;
    throw new Error(`${error.message} Choose its tokenizer.json together with the checkpoint.`, { cause: error });
  }
}
