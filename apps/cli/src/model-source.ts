// The model that a command is given: a model folder, a run or its checkpoint, a torch checkpoint, or a folder behind a URL.
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError, ConfigError, languageModel, modelConfigFromJson, type SisaForm } from "@sisa/core";
import {
  byteTokenizer,
  type LoadedModel,
  loadTokenizer,
  openTorchCheckpoint,
  type Tokenizer,
  tokenizerFromFiles,
  urlStorage,
} from "@sisa/hub";
import { directory, loadModel } from "@sisa/hub/node";
import { checkpointName, listCheckpoints, parseTrainingConfig } from "@sisa/train";
import { type Command, Option } from "commander";
import { numberWithin } from "./context.ts";
import { checkpointsFolder, configOfRun, followPointer, runFile } from "./run-folder.ts";

/** What the command line may say about a model besides its place. */
export interface ModelOptions {
  readonly tokenizer?: string;
  readonly heads?: number;
  readonly form?: SisaForm;
}

export interface ModelSource extends LoadedModel {
  /** Where it was found: the folder or file itself. */
  readonly path: string;
  /** The run that it belongs to, where it came from one. */
  readonly run?: string;
}

/** Options of every command that takes a model. */
export function addModelOptions(command: Command): Command {
  return command
    .addOption(new Option("--tokenizer <file>", '"byte" or a tokenizer.json, in place of the model\'s own'))
    .addOption(
      new Option("--heads <number>", "heads of a Transformer's .pt file, which its weights do not tell").argParser(
        numberWithin({ whole: true, minimum: 1 }),
      ),
    )
    .addOption(new Option("--form <form>", "form of SISA, in place of the model's own").choices(["exact", "sdpa"]));
}

/**
 * Loads a model from where a user says it is.
 *
 * @param place path relative to `cwd`, or an http URL
 * @throws CheckpointError, StorageError
 */
export async function loadSource(place: string, cwd: string, options: ModelOptions): Promise<ModelSource> {
  const { heads, form } = options;
  const tokenizer = options.tokenizer === undefined ? undefined : await openTokenizer(options.tokenizer, cwd);
  if (/^https?:\/\//.test(place)) {
    const loaded = await loadModel(place, tokenizer === undefined ? {} : { tokenizer });
    return { ...withForm(loaded, form), path: place };
  }
  const { path, run } = await findModel(await followPointer(resolve(cwd, place)));
  if (heads !== undefined && !isTorch(path)) {
    throw new ConfigError(`--heads is for .pt files; ${place} says itself how many heads it has`);
  }
  const given = tokenizer ?? (isTorch(path) ? await tokenizerOfTorch(path) : await tokenizerOfSynthetic(path, run));
  const loaded = await loadModel(path, {
    ...(heads === undefined ? {} : { heads }),
    ...(form === undefined ? {} : { form }),
    ...(given === undefined ? {} : { tokenizer: given }),
  });
  return { ...withForm(loaded, form), path, ...(run === undefined ? {} : { run }) };
}

function withForm(loaded: LoadedModel, form: SisaForm | undefined): LoadedModel {
  if (form === undefined || form === loaded.model.config.form) return loaded;
  return { ...loaded, model: languageModel({ ...loaded.model.config, form }) };
}

/** Tokenizers that have a name of their own here. */
const tokenizerUrls: ReadonlyMap<string, string> = new Map([
  ["gpt-neox", "https://huggingface.co/EleutherAI/gpt-neox-20b/resolve/main/"],
]);

/** A tokenizer by its word, its file or folder, or the URL of its folder. */
export async function openTokenizer(place: string, cwd: string): Promise<Tokenizer> {
  if (place === "byte") return byteTokenizer();
  const url = tokenizerUrls.get(place) ?? (/^https?:\/\//.test(place) ? place : undefined);
  if (url !== undefined) return await loadTokenizer(urlStorage(url));
  const path = resolve(cwd, place);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) throw new CheckpointError(`${path}: there is no such tokenizer file; "byte" needs none`);
  const [folder, name] = found.isDirectory() ? [path, "tokenizer.json"] : [dirname(path), basename(path)];
  const file = join(folder, name);
  const content = await readFile(file).catch((cause: unknown) => {
    throw new CheckpointError(`${file}: cannot be read: ${cause instanceof Error ? cause.message : cause}`, { cause });
  });
  const files: Record<string, Uint8Array> = { "tokenizer.json": content };
  const config = await readFile(join(folder, "tokenizer_config.json")).catch(() => undefined);
  if (config !== undefined) files["tokenizer_config.json"] = config;
  try {
    return tokenizerFromFiles(files, folder);
  } catch (cause) {
    if (!CheckpointError.isInstance(cause)) throw cause;
    // The reader knows the file by its usual name only.
    throw new CheckpointError(cause.message.replace(`${folder}/tokenizer.json`, file), { cause });
  }
}

/** The model folder or file that a path means, and the run it is part of. */
async function findModel(path: string): Promise<{ path: string; run?: string }> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    throw new CheckpointError(`${path}: there is no such model folder, run or checkpoint`);
  }
  if (!found.isDirectory() || (await isFile(join(path, "config.json")))) {
    const run = join(path, "../..");
    return (await isFile(join(run, runFile))) ? { path, run } : { path };
  }
  const inside = join(path, checkpointsFolder);
  for (const folder of [inside, path]) {
    const newest = (await listCheckpoints(directory(folder)).catch(() => [])).at(-1);
    const run = folder === inside ? path : dirname(path);
    if (newest !== undefined) return { path: join(folder, checkpointName(newest)), run };
  }
  throw new CheckpointError(`${path}: holds no model: neither config.json nor checkpoints of a run`);
}

async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true;
}

function isTorch(path: string): boolean {
  return /\.pth?$/.test(path);
}

/** A torch checkpoint without tokenizer.json beside it still has weights to look at. */
async function tokenizerOfTorch(path: string): Promise<Tokenizer | undefined> {
  if (await isFile(join(dirname(path), "tokenizer.json"))) return undefined;
  await using checkpoint = await openTorchCheckpoint(directory(dirname(path)), basename(path));
  const [size = 0] = checkpoint.tensors.get("embed.weight")?.shape ?? [];
  return withoutText(
    size,
    `${path}: has no tokenizer; pass --tokenizer FILE, or put its tokenizer.json beside the checkpoint`,
  );
}

/** Models that were trained on generated tokens are measured on such tokens, and have no text. */
async function tokenizerOfSynthetic(path: string, run: string | undefined): Promise<Tokenizer | undefined> {
  if (run === undefined || (await isFile(join(path, "tokenizer.json")))) return undefined;
  const { data } = parseTrainingConfig(await configOfRun(run));
  if (data.synthetic === undefined) return undefined;
  const config = modelConfigFromJson(JSON.parse(await readFile(join(path, "config.json"), "utf8")));
  return withoutText(
    config.vocabularySize,
    `${path}: was trained on generated tokens (${data.synthetic}) and has no text; measure it with sisa eval --tasks ` +
      `${data.synthetic}`,
  );
}

/** A tokenizer for what needs its size alone; everything else is refused with a message. */
function withoutText(size: number, message: string): Tokenizer {
  const refuse = (): never => {
    throw new CheckpointError(message);
  };
  const text = { encode: refuse, decode: refuse, byteLength: refuse, tokenBytes: refuse, streamDecoder: refuse };
  return { size, endOfText: undefined, ...text };
}
