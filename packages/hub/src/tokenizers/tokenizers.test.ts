import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { CheckpointError, DataError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { memoryStorage } from "../storage/memory-storage.ts";
import { seededRandom, utf8 } from "../testing.ts";
import { byteCharacters } from "./byte-level.ts";
import { byteTokenizer } from "./byte-tokenizer.ts";
import { loadTokenizer, tokenizerFromFiles } from "./json-tokenizer.ts";
import { type Tokenizer, tokenizerFingerprint } from "./tokenizer.ts";

const texts = [
  "",
  "Hello, world!",
  "It's 3 o'clock;  they'll\n\n\tcome   back  ",
  "naïve café, Ünïcödé, e\u0301 before NFC",
  "emoji 😀👩‍👩‍👧 and 中文字符 and \ufeffa mark",
  "\ufeffstarts with a mark",
  "<|endoftext|>a<|endoftext|><|endoftext|>b   <|endoftext|>",
  "\u0000\u0001\u007f controls",
  "        eight spaces, then    four",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

const added = (id: number, content: string, more: object = {}): object => ({ id, content, special: true, ...more });

/** A byte-level BPE of the GPT-NeoX kind with a few merges and a token of spaces that is not special. */
const bytePairs = {
  version: "1.0",
  added_tokens: [
    added(0, "<|endoftext|>", { normalized: false }),
    added(263, "    ", { special: false, normalized: true }),
    added(264, "  ", { special: false, normalized: true }),
  ],
  normalizer: { type: "NFC" },
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
  post_processor: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
  decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
  model: {
    type: "BPE",
    vocab: Object.fromEntries(
      ["<|endoftext|>", ...byteCharacters, "he", "ll", "hell", "Ġt", "Ġthe", "Ã©"].map((token, id) => [token, id]),
    ),
    merges: ["h e", "l l", "he ll", "Ġ t", "Ġt he", "Ã ©"],
  },
};

/** The SentencePiece kind: spaces as U+2581, one dropped at the start, unknown characters as bytes. */
const pieces = {
  version: "1.0",
  added_tokens: [added(0, "<unk>"), added(1, "</s>")],
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  },
  pre_tokenizer: null,
  post_processor: null,
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
  model: {
    type: "BPE",
    unk_token: "<unk>",
    byte_fallback: true,
    vocab: Object.fromEntries(
      [
        "<unk>",
        "</s>",
        ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
        ..."▁abcdefghijklmnopqrstuvwxyz,.!",
        "▁t",
        "he",
        "▁the",
      ].map((token, id) => [token, id]),
    ),
    merges: ["▁ t", "h e", "▁t he"],
  },
};

const filesOf = (json: object, config?: object): Record<string, Uint8Array> => ({
  "tokenizer.json": utf8(JSON.stringify(json)),
  ...(config === undefined ? {} : { "tokenizer_config.json": utf8(JSON.stringify(config)) }),
});

const tokenizers: [string, Tokenizer][] = [
  ["byteTokenizer", byteTokenizer()],
  ["a byte-level BPE", tokenizerFromFiles(filesOf(bytePairs))],
  ["a SentencePiece BPE", tokenizerFromFiles(filesOf(pieces))],
];

/** The library loses U+FEFF where it decodes bytes that stand for an unknown character. */
const textsFor = (name: string): string[] =>
  name === "a SentencePiece BPE" ? texts.filter((text) => !text.includes("\ufeff")) : texts;

describe.each(tokenizers)("%s", (name, tokenizer) => {
  it("keeps texts that are normalised", () => {
    for (const text of textsFor(name)) {
      const normal = text.normalize("NFC");
      expect(tokenizer.decode(tokenizer.encode(normal))).toBe(normal);
    }
  });

  it("streams exactly what it decodes, whatever the ids, and never half a character", () => {
    const random = seededRandom(4);
    for (let round = 0; round < 300; round++) {
      const ids = Array.from({ length: Math.floor(random() * 12) }, () => Math.floor(random() * tokenizer.size));
      const decoder = tokenizer.streamDecoder();
      const streamed = ids.map((id) => decoder.push(id));
      streamed.push(decoder.flush());
      expect(streamed.join("")).toBe(tokenizer.decode(ids));
    }
    for (const text of texts) {
      const decoder = tokenizer.streamDecoder();
      for (const id of tokenizer.encode(text)) {
        const part = decoder.push(id);
        expect(part).not.toContain("\ufffd");
        expect(part).not.toMatch(/\p{Surrogate}/u);
      }
      expect(decoder.flush()).toBe("");
    }
  });

  it("knows the bytes of each token, of parts of characters too", () => {
    for (const text of textsFor(name)) {
      const normal = text.normalize("NFC");
      const bytes = tokenizer.encode(normal).flatMap((id) => Array.from(tokenizer.tokenBytes(id)));
      // SentencePiece puts a space in front of a text, and takes it away again.
      const expected = name === "a SentencePiece BPE" && normal !== "" ? ` ${normal}` : normal;
      expect(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes))).toBe(expected);
    }
    expect(() => tokenizer.tokenBytes(tokenizer.size)).toThrow(DataError);
  });

  it("starts anew after a flush", () => {
    const [first = 0] = tokenizer.encode("é");
    const decoder = tokenizer.streamDecoder();
    decoder.push(first);
    decoder.flush();
    expect([...tokenizer.encode("the"), ...tokenizer.encode(" x")].map((id) => decoder.push(id)).join("")).toBe(
      tokenizer.decode([...tokenizer.encode("the"), ...tokenizer.encode(" x")]),
    );
  });

  it("refuses ids it does not have", () => {
    for (const id of [-1, tokenizer.size, 1.5, Number.NaN]) {
      expect(() => tokenizer.decode([id])).toThrow(DataError);
      expect(() => tokenizer.streamDecoder().push(id)).toThrow(`got ${id}`);
    }
  });
});

describe("byteTokenizer", () => {
  const tokenizer = byteTokenizer();

  it("has the bytes and end of text", () => {
    expect(tokenizer.size).toBe(257);
    expect(tokenizer.endOfText).toBe(256);
    expect(tokenizer.encode("aé")).toEqual([97, 0xc3, 0xa9]);
    expect(tokenizer.encode("a<|endoftext|>")).toEqual([97, 256]);
    expect(tokenizer.decode([0xc3, 65])).toBe("\ufffdA");
  });

  it("gives the ids that Hugging Face's library gives for its tokenizer.json", () => {
    const json = JSON.parse(new TextDecoder().decode(tokenizer.files?.["tokenizer.json"]));
    const library = new LibraryTokenizer(json, {});
    for (const text of texts)
      expect(library.encode(text, { add_special_tokens: false }).ids).toEqual(tokenizer.encode(text));
  });

  it("refuses a text of more ids than a list can hold", () => {
    expect(() => tokenizer.encode("a".repeat(120 * 2 ** 20))).toThrow(DataError);
  });

  it("is known again from its files, whatever their layout", () => {
    const json = JSON.parse(new TextDecoder().decode(tokenizer.files?.["tokenizer.json"]));
    const again = tokenizerFromFiles(filesOf(json));
    expect(again.encode.toString()).toBe(tokenizer.encode.toString());
    expect(tokenizerFingerprint(again)).toBe(tokenizerFingerprint(tokenizer));
  });
});

describe("tokenizerFromFiles", () => {
  const tokenizer = tokenizerFromFiles(filesOf(bytePairs));

  it("knows the size and the end of text", () => {
    expect(tokenizer.size).toBe(265);
    expect(tokenizer.endOfText).toBe(0);
    expect(tokenizer.encode("hell the é")).toEqual([259, 261, 33, 262]);
  });

  it("gives the ids of the library, texts and random ones alike", () => {
    const library = new LibraryTokenizer(bytePairs, {});
    const expected = (text: string): number[] => library.encode(text, { add_special_tokens: false }).ids;
    for (const text of texts) expect(tokenizer.encode(text)).toEqual(expected(text));
    const random = seededRandom(5);
    const parts = [
      "the",
      "hell",
      "é",
      "e\u0301",
      " ",
      "  ",
      "    ",
      "\n",
      "\t",
      "'s",
      "'",
      "1",
      "?!",
      "😀",
      "<|",
      "<|endoftext|>",
      "中",
    ];
    for (let round = 0; round < 1000; round++) {
      const text = Array.from({ length: 1 + random() * 10 }, () => parts[Math.floor(random() * parts.length)]).join("");
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(expected(text));
    }
  });

  it("takes the end of text from tokenizer_config.json where there is one", () => {
    expect(tokenizerFromFiles(filesOf(bytePairs, { eos_token: "he" })).endOfText).toBe(257);
    expect(tokenizerFromFiles(filesOf(bytePairs, { eos_token: { content: "<|endoftext|>" } })).endOfText).toBe(0);
    expect(tokenizerFromFiles(filesOf({ ...bytePairs, added_tokens: [] })).endOfText).toBeUndefined();
  });

  it("tells tokenizers apart by their content, not its layout", () => {
    const print = (json: object): string | undefined =>
      tokenizerFingerprint({ ...tokenizer, files: { "tokenizer.json": utf8(JSON.stringify(json, undefined, 3)) } });
    expect(print(bytePairs)).toBe(tokenizerFingerprint(tokenizer));
    expect(print({ ...bytePairs, normalizer: null })).not.toBe(tokenizerFingerprint(tokenizer));
    const { files: _, ...without } = tokenizer;
    expect(tokenizerFingerprint(without)).toBeUndefined();
  });

  it("is read from a folder", async () => {
    const folder = memoryStorage(filesOf(bytePairs, { eos_token: "he" }));
    const loaded = await loadTokenizer(folder);
    expect(loaded.endOfText).toBe(257);
    expect(Object.keys(loaded.files ?? {})).toEqual(["tokenizer.json", "tokenizer_config.json"]);
  });

  it.each<[string, Record<string, Uint8Array>, RegExp]>([
    ["is missing", {}, /^memory: expected tokenizer.json; it is missing$/],
    ["is cut short", { "tokenizer.json": utf8('{"model":') }, /tokenizer.json: not JSON, or cut short/],
    ["is no object", { "tokenizer.json": utf8("[]") }, /expected a JSON object/],
    ["is of an unknown kind", filesOf({ ...bytePairs, normalizer: { type: "Odd" } }), /cannot be used: .*Odd/],
    ["has no model", filesOf({ version: "1.0" }), /tokenizer.json: cannot be used/],
    [
      "has a damaged configuration",
      { ...filesOf(bytePairs), "tokenizer_config.json": utf8("{") },
      /tokenizer_config.json: not JSON/,
    ],
  ])("says that it %s", async (_, files, message) => {
    const load = loadTokenizer(memoryStorage(files));
    await expect(load).rejects.toThrow(message);
    await expect(load).rejects.toBeInstanceOf(CheckpointError);
  });
});
