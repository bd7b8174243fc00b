// Model folders on disk: a save is prepared beside the folder and moved into place when all of it is written.

import { randomBytes } from "node:crypto";
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { CheckpointError } from "@sisa/core";
import { removeOtherTensors } from "../safetensors/sharded.ts";
import { directory } from "../storage/directory-storage.ts";
import type { Storage } from "../storage/storage.ts";
import { urlStorage } from "../storage/url-storage.ts";
import { loadTokenizer } from "../tokenizers/json-tokenizer.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { type ImportOptions, importTorchModel } from "./import-torch.ts";
import {
  type LoadedModel,
  type LoadOptions,
  loadModelFolder,
  type ModelToSave,
  type SaveOptions,
  saveModelFolder,
} from "./model-folder.ts";

/** Options of `loadModel` on Node; those of `ConfigHints` are for torch checkpoints. */
export interface NodeLoadOptions extends LoadOptions, Omit<ImportOptions, "tokenizer"> {}

/**
 * Loads a model from a folder, a torch checkpoint (`.pt`, `.pth`), or a folder behind a URL.
 * A torch checkpoint takes the tokenizer from the options, or from tokenizer.json beside it.
 *
 * @throws CheckpointError for what is no sound model, or a torch checkpoint without a tokenizer; StorageError where a
 *   file cannot be read
 */
export async function loadModel(source: string | URL | Storage, options: NodeLoadOptions = {}): Promise<LoadedModel> {
  if (typeof source !== "string" && !(source instanceof URL)) return await loadModelFolder(source, options);
  const isFileUrl = source instanceof URL && source.protocol === "file:";
  if (!isFileUrl && /^https?:/.test(String(source))) return await loadModelFolder(urlStorage(source), options);

  const path = resolve(source instanceof URL ? fileURLToPath(source) : source);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) throw new CheckpointError(`${path}: there is no such model folder or checkpoint`);
  if (found.isDirectory()) return await loadModelFolder(directory(path), options);
  if (!/\.pth?$/.test(path)) {
    throw new CheckpointError(`${path}: expected a model folder, or a torch checkpoint named .pt or .pth`);
  }
  const beside = directory(dirname(path));
  const tokenizer = options.tokenizer ?? (await tokenizerBeside(beside, path));
  return await importTorchModel(beside, basename(path), { ...options, tokenizer });
}

async function tokenizerBeside(folder: Storage, path: string): Promise<Tokenizer> {
  if ((await folder.size("tokenizer.json")) === undefined) {
    throw new CheckpointError(`${path}: has no tokenizer; pass one, or put its tokenizer.json beside the checkpoint`);
  }
  return await loadTokenizer(folder);
}

/**
 * Writes a model folder. An existing one is replaced only when all files are written and durable; files in it that are
 * not the model's, such as a README.md of yours, are left alone.
 *
 * @param path the folder, which is made where there is none; or a storage, which is written to directly
 * @throws CheckpointError where parameters are missing or left over, or the tokenizer is of another vocabulary;
 *   ShapeError where one is of another size; StorageError where the disk is full; the folder is as it was then
 */
export async function saveModel(
  path: string | URL | Storage,
  model: ModelToSave,
  options: SaveOptions = {},
): Promise<void> {
  if (typeof path !== "string" && !(path instanceof URL)) return await saveModelFolder(path, model, options);
  const folder = resolve(path instanceof URL ? fileURLToPath(path) : path);
  const name = basename(folder);
  const parent = directory(dirname(folder));
  const draft = `.${name}.${randomBytes(6).toString("hex")}.draft`;
  try {
    const drafted = directory(join(parent.location, draft));
    await saveModelFolder(drafted, model, options);
    if ((await stat(folder).catch(() => undefined)) === undefined) {
      await parent.rename(draft, name);
      return;
    }
    const target = directory(folder);
    const keepsReadme = (await target.size("README.md")) !== undefined;
    const files = (await drafted.list()).filter((file) => !(keepsReadme && file === "README.md"));
    for (const file of files) await parent.rename(`${draft}/${file}`, `${name}/${file}`);
    await removeOtherTensors(target, files);
  } finally {
    await parent.remove(draft);
  }
}
