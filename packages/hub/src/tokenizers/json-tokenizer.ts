// Tokenizers from tokenizer.json, through @huggingface/tokenizers. Added here: a stream decoder that never gives out
// half a character, and errors that name the file.

import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { CheckpointError } from "@sisa/core";
import { isObject, parseJsonObject } from "../json.ts";
import { readBytes, type Storage } from "../storage/storage.ts";
import { bytesOfToken } from "./byte-level.ts";
import { byteStreamDecoder, type TokenContent } from "./byte-stream-decoder.ts";
import { byteTokenizer } from "./byte-tokenizer.ts";
import { textDifferenceDecoder } from "./text-difference-decoder.ts";
import {
  bytesOf,
  bytesOfAll,
  checkId,
  decodeAll,
  type StreamDecoder,
  type Tokenizer,
  tokenizerFingerprint,
} from "./tokenizer.ts";
import { wordEncoder } from "./word-encoder.ts";

/** Names that end-of-text tokens have, for a tokenizer.json that comes without tokenizer_config.json. */
const endOfTextNames = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];

/**
 * A tokenizer from the bytes of its files.
 *
 * @param files    `tokenizer.json`, and `tokenizer_config.json` where there is one: it names the end-of-text token
 * @param location for messages
 * @throws CheckpointError where they are damaged, or of a kind that @huggingface/tokenizers does not know
 */
export function tokenizerFromFiles(files: Readonly<Record<string, Uint8Array>>, location = "tokenizer"): Tokenizer {
  const file = files["tokenizer.json"];
  if (file === undefined) throw new CheckpointError(`${location}: expected tokenizer.json; it is missing`);
  const json = parseJsonObject(file, `${location}/tokenizer.json`);
  const configFile = files["tokenizer_config.json"];
  const config = configFile === undefined ? {} : parseJsonObject(configFile, `${location}/tokenizer_config.json`);

  const bytes = byteTokenizer();
  if (tokenizerFingerprint({ ...bytes, files }) === tokenizerFingerprint(bytes)) return { ...bytes, files };
  return libraryTokenizer(json, config, files, location);
}

/**
 * The tokenizer of a model folder.
 * @throws CheckpointError where tokenizer.json is missing or damaged; StorageError where it cannot be read
 */
export async function loadTokenizer(storage: Storage): Promise<Tokenizer> {
  const files: Record<string, Uint8Array> = {};
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    if ((await storage.size(name)) !== undefined) files[name] = await readBytes(storage, name);
  }
  return tokenizerFromFiles(files, storage.location);
}

function libraryTokenizer(
  json: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
  files: Readonly<Record<string, Uint8Array>>,
  location: string,
): Tokenizer {
  const library = construct(json, config, location);
  const size = library.model?.vocab.length ?? 0;
  const encodeByLibrary = (text: string): number[] => library.encode(text, { add_special_tokens: false }).ids;
  const decodeByLibrary = (ids: number[]): string =>
    // The library refuses an empty list, and would by default take spaces away before full stops.
    ids.length === 0 ? "" : library.decode(ids, { clean_up_tokenization_spaces: false });

  const isByteLevel = isObject(json.decoder) && json.decoder.type === "ByteLevel";
  const contents = isByteLevel ? byteLevelContents(library, size) : undefined;
  const contentOf = (id: number): TokenContent => {
    checkId(id, size);
    return contents?.[id] ?? "";
  };
  const streamDecoder = (): StreamDecoder =>
    contents === undefined ? textDifferenceDecoder(decodeByLibrary, size) : byteStreamDecoder(contentOf);
  const decode = (ids: ArrayLike<number>): string => {
    if (contents !== undefined) return decodeAll(streamDecoder(), ids);
    const list = Array.from(ids);
    for (const id of list) checkId(id, size);
    return decodeByLibrary(list);
  };
  const byteFallback = isObject(json.model) && json.model.byte_fallback === true;
  /** A token alone may lose its space; behind itself it does not. */
  const addedBytes = (id: number): Uint8Array => {
    checkId(id, size);
    const [, byte] = (byteFallback && /^<0x([0-9A-F]{2})>$/.exec(library.id_to_token(id) ?? "")) || [];
    if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
    return new TextEncoder().encode(decode([id, id]).slice(decode([id]).length));
  };
  return {
    size,
    endOfText: endOfTextId(library, config),
    files,
    encode: wordEncoder(json, config, encodeByLibrary) ?? encodeByLibrary,
    decode,
    byteLength: (ids) =>
      contents === undefined ? new TextEncoder().encode(decode(ids)).length : bytesOfAll(contentOf, ids),
    tokenBytes: (id) => (contents === undefined ? addedBytes(id) : bytesOf(contentOf(id))),
    streamDecoder,
  };
}

function construct(
  json: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
  location: string,
): LibraryTokenizer {
  const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] };
  try {
    return new LibraryTokenizer({ ...absent, ...json }, config);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`${location}/tokenizer.json: cannot be used: ${reason}`, { cause });
  }
}

function endOfTextId(library: LibraryTokenizer, config: Readonly<Record<string, unknown>>): number | undefined {
  const { eos_token: token } = config;
  const named = isObject(token) ? token.content : token;
  if (typeof named === "string") return library.token_to_id(named);
  const added = [...library.get_added_tokens_decoder().values()].map((each) => each.content);
  const usual = endOfTextNames.find((name) => added.includes(name));
  return usual === undefined ? undefined : library.token_to_id(usual);
}

/** What each id of a byte-level tokenizer stands for. */
function byteLevelContents(library: LibraryTokenizer, size: number): TokenContent[] {
  const added = library.get_added_tokens_decoder();
  return Array.from({ length: size }, (_, id) => {
    const token = library.id_to_token(id) ?? "";
    return added.has(id) ? token : (bytesOfToken(token) ?? token);
  });
}
