// Where a model can be loaded from, in browsers and everywhere else.

import { filesStorage, type PickedFile } from "../storage/files-storage.ts";
import type { Storage } from "../storage/storage.ts";
import { urlStorage } from "../storage/url-storage.ts";
import { type LoadedModel, type LoadOptions, loadModelFolder } from "./model-folder.ts";

/**
 * Loads a model from a folder behind a URL, from files that a person picked, or from any storage.
 *
 * @param source URL of the folder, such as `https://huggingface.co/OWNER/MODEL/resolve/main/`; files; or a storage
 * @throws CheckpointError for what is no sound model folder; StorageError where a file cannot be read, such as a URL
 *   that cannot be reached
 */
export async function loadModel(
  source: string | URL | Iterable<PickedFile> | Storage,
  options: LoadOptions = {},
): Promise<LoadedModel> {
  return await loadModelFolder(storageOf(source), options);
}

function storageOf(source: string | URL | Iterable<PickedFile> | Storage): Storage {
  if (typeof source === "string" || source instanceof URL) return urlStorage(source);
  return Symbol.iterator in source ? filesStorage(source) : source;
}
