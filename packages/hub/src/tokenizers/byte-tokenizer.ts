// The tokenizer of small experiments: a token is a byte of UTF-8.

import { DataError } from "@sisa/core";
import { jsonBytes } from "../json.ts";
import { byteCharacters } from "./byte-level.ts";
import { byteStreamDecoder, type TokenContent } from "./byte-stream-decoder.ts";
import { bytesOf, bytesOfAll, checkId, decodeAll, type StreamDecoder, type Tokenizer } from "./tokenizer.ts";

const endOfTextToken = "<|endoftext|>";
const endOfTextId = 256;

/** Ids of one text. Where a list grows past about 112 million, V8 ends the process with an error that nobody can catch. */
const maximumIds = 100 * 1024 * 1024;

/** Tokenizer of 257 tokens: ids 0 to 255 are bytes, 256 is `<|endoftext|>`. It needs no files and knows every text. */
export function byteTokenizer(): Tokenizer {
  const contents: TokenContent[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  contents.push(endOfTextToken);
  const contentOf = (id: number): TokenContent => {
    checkId(id, contents.length);
    return contents[id] ?? "";
  };
  const streamDecoder = (): StreamDecoder => byteStreamDecoder(contentOf);
  return {
    size: contents.length,
    endOfText: endOfTextId,
    files: byteTokenizerFiles(),
    encode(text) {
      const ids: number[] = [];
      for (const [index, part] of text.split(endOfTextToken).entries()) {
        if (index > 0) ids.push(endOfTextId);
        const bytes = new TextEncoder().encode(part);
        if (ids.length + bytes.length > maximumIds) {
          throw new DataError(
            "encode: expected at most 100 MiB of text at once, got more; cut it into several documents, or into shards " +
              "with `sisa prepare`",
          );
        }
        // Array.from would walk the bytes by an iterator, several times slower.
        for (let at = 0; at < bytes.length; at++) ids.push(bytes[at] ?? 0);
      }
      return ids;
    },
    decode: (ids) => decodeAll(streamDecoder(), ids),
    byteLength: (ids) => bytesOfAll(contentOf, ids),
    tokenBytes: (id) => bytesOf(contentOf(id)),
    streamDecoder,
  };
}

/** The same tokenizer in the form that Hugging Face libraries read. */
function byteTokenizerFiles(): Record<string, Uint8Array> {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: true };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: endOfTextId,
        content: endOfTextToken,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(byteCharacters.map((character, byte) => [character, byte])),
      merges: [],
    },
  };
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: endOfTextToken,
    eos_token: endOfTextToken,
    clean_up_tokenization_spaces: false,
  };
  return { "tokenizer.json": jsonBytes(tokenizer), "tokenizer_config.json": jsonBytes(config) };
}
