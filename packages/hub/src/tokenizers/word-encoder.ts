// Fast encoding for byte-level tokenizers, the family of GPT-2 and GPT-NeoX: their text is first cut into words, and
// the ids of a word depend on nothing but the word. So each word is encoded once, by the library, and looked up from
// then on. Everything else about a tokenizer is the library's affair.

import { isObject } from "../json.ts";

/** The cut of GPT-2, which tokenizer.json names by `ByteLevel` with `use_regex`. Source: Radford et al. 2019. */
const word = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** Words of one generation of the cache, of which there are two: about 20 MB in all. */
const generationWords = 100_000;
const maximumCachedLength = 64;

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly normalized: boolean;
}

/**
 * A function that encodes as the library does, many times faster, or undefined where this tokenizer is of another kind.
 *
 * @param json       content of tokenizer.json
 * @param config     content of tokenizer_config.json
 * @param encodeWord the library's encoding of a piece of text
 */
export function wordEncoder(
  json: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
  encodeWord: (text: string) => readonly number[],
): ((text: string) => number[]) | undefined {
  const { model, normalizer, pre_tokenizer: preTokenizer } = json;
  const isBytePairs = isObject(model) && model.type === "BPE" && (model.dropout ?? null) === null;
  const isNormal = (normalizer ?? null) === null || (isObject(normalizer) && normalizer.type === "NFC");
  const isByteLevel =
    isObject(preTokenizer) &&
    preTokenizer.type === "ByteLevel" &&
    preTokenizer.add_prefix_space === false &&
    (preTokenizer.use_regex ?? true) === true;
  const changesText = Boolean(config.remove_space || config.do_lowercase_and_remove_accent);
  const added = plainAddedTokens(json.added_tokens ?? []);
  if (changesText || !isBytePairs || !isNormal || !isByteLevel || added === undefined) return undefined;

  const normalize = isObject(normalizer) ? (text: string) => text.normalize("NFC") : (text: string) => text;
  // Tokens marked `normalized` are looked for in the normalised text, the others before.
  const verbatim = splitterOf(added.filter((token) => !token.normalized));
  const normalized = splitterOf(added.filter((token) => token.normalized));
  const idOf = new Map(added.map((token) => [token.content, token.id]));
  // A full generation becomes the old one; words that are met again move to the young one, the others are forgotten.
  let young = new Map<string, readonly number[]>();
  let old = young;

  const idsOfWord = (text: string): readonly number[] => {
    const known = young.get(text);
    if (known !== undefined) return known;
    const ids = old.get(text) ?? encodeWord(text);
    if (text.length > maximumCachedLength) return ids;
    if (young.size >= generationWords) {
      old = young;
      young = new Map();
    }
    // A match is a view of its text in V8; as a key it would keep the whole text alive.
    young.set(Array.from(text).join(""), ids);
    return ids;
  };

  return (text) => {
    const ids: number[] = [];
    for (const section of verbatim(text)) {
      const special = idOf.get(section);
      if (special !== undefined) {
        ids.push(special);
        continue;
      }
      for (const part of normalized(normalize(section))) {
        const id = idOf.get(part);
        if (id !== undefined) ids.push(id);
        else for (const found of part.match(word) ?? []) append(ids, idsOfWord(found));
      }
    }
    return ids;
  };
}

/** A spread would put a long word's ids on the stack. */
function append(ids: number[], more: readonly number[]): void {
  for (const id of more) ids.push(id);
}

/** The added tokens, or undefined where one has a rule about its neighbours. */
function plainAddedTokens(list: unknown): AddedToken[] | undefined {
  const tokens: AddedToken[] = [];
  if (!Array.isArray(list)) return undefined;
  for (const token of list) {
    if (!isObject(token) || typeof token.id !== "number" || typeof token.content !== "string") return undefined;
    if (token.content === "" || token.lstrip || token.rstrip || token.single_word) return undefined;
    const isNormalized = typeof token.normalized === "boolean" ? token.normalized : token.special !== true;
    tokens.push({ id: token.id, content: token.content, normalized: isNormalized });
  }
  return tokens;
}

/** Cuts text before and after each of the tokens, the longest first where several match. */
function splitterOf(tokens: readonly AddedToken[]): (text: string) => string[] {
  if (tokens.length === 0) return (text) => (text === "" ? [] : [text]);
  const longestFirst = tokens.map((token) => token.content).sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(${longestFirst.map(escapeRegExp).join("|")})`, "u");
  return (text) => text.split(pattern).filter((part) => part !== "");
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, (character) => `\\u{${character.charCodeAt(0).toString(16)}}`);
}
