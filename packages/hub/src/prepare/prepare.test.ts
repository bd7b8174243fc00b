import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { ConfigError, DataError } from "@sisa/core";
import { build } from "esbuild";
import { type ParquetWriteOptions, parquetWriteBuffer } from "hyparquet-writer";
import { beforeAll, describe, expect, it } from "vitest";
import { openTokenShards, type TokenSplit } from "../shards/read-shards.ts";
import { directory } from "../storage/directory-storage.ts";
import { seededRandom, temporaryFolder } from "../testing.ts";
import { byteTokenizer } from "../tokenizers/byte-tokenizer.ts";
import { type PrepareOptions, type PrepareProgress, type PrepareResult, prepare, prepareWith } from "./prepare.ts";

const tokenizer = byteTokenizer();
const { files: _files, ...unsaved } = tokenizer;
type Files = Readonly<Record<string, string | Uint8Array>>;

/** Files on disk, and the folder for the shards. */
async function write(files: Files): Promise<{ paths: string[]; folder: string; to: string }> {
  const folder = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
  return { paths: Object.keys(files).map((name) => join(folder, name)), folder, to: join(folder, "shards") };
}

async function prepared(
  files: Files,
  options: Partial<PrepareOptions> = {},
): Promise<{ result: PrepareResult; to: string; folder: string }> {
  const { paths, folder, to } = await write(files);
  return { result: await prepare({ files: paths, tokenizer, to, ...options }), to, folder };
}

async function documentsOf(split: TokenSplit): Promise<string[]> {
  return tokenizer
    .decode(await split.read(0, split.length))
    .split("<|endoftext|>")
    .slice(0, -1);
}

/** Documents of both parts, training first. */
async function documents(files: Files, options: Partial<PrepareOptions> = {}): Promise<string[]> {
  const { to } = await prepared(files, { heldOutFraction: 0, ...options });
  const shards = await openTokenShards(directory(to));
  return [...(await documentsOf(shards.train)), ...(await documentsOf(shards.heldOut))];
}

const jsonLines = (texts: readonly string[]): string =>
  texts.map((text) => `${JSON.stringify({ id: 1, text })}\n`).join("");

/** A frame of zstd that stores bytes as they are. Source: RFC 8878, sections 3.1.1.1 and 3.1.1.2. */
function zstdStored(bytes: Uint8Array): Uint8Array {
  const header = new DataView(new ArrayBuffer(9));
  header.setUint32(0, 0xfd2fb528, true);
  header.setUint8(4, 0xa0);
  header.setUint32(5, bytes.length, true);
  const parts: Uint8Array[] = [new Uint8Array(header.buffer)];
  for (let at = 0; at === 0 || at < bytes.length; at += 100_000) {
    const part = bytes.subarray(at, at + 100_000);
    const block = part.length * 8 + (at + 100_000 >= bytes.length ? 1 : 0);
    parts.push(Uint8Array.of(block & 255, (block >> 8) & 255, block >> 16), part);
  }
  return Buffer.concat(parts);
}

function parquet(columns: ParquetWriteOptions["columnData"], options: Partial<ParquetWriteOptions> = {}): Uint8Array {
  return new Uint8Array(parquetWriteBuffer({ columnData: columns, ...options }));
}

const words = ["alpha", "beta", "gamma", "délta", "中文", "😀", "and", "so", "on"];

function someTexts(count: number, seed = 11): string[] {
  const random = seededRandom(seed);
  const word = (): string => words[Math.floor(random() * words.length)] ?? "";
  return Array.from(
    { length: count },
    (_, index) => `${index} ${Array.from({ length: random() * 60 }, word).join(" ")}`,
  );
}

describe("prepare reads", () => {
  it("JSON lines, plain, .gz and .zst, blank lines and a byte order mark aside", async () => {
    const text = `\ufeff${jsonLines(["one", "two"])}\n  \r\n${JSON.stringify({ text: "three" })}`;
    const bytes = new TextEncoder().encode(text);
    const expected = ["one", "two", "three"];
    expect(await documents({ "a.jsonl": text })).toEqual(expected);
    expect(await documents({ "a.ndjson": text })).toEqual(expected);
    expect(await documents({ "a.jsonl.gz": gzipSync(bytes) })).toEqual(expected);
    expect(await documents({ "a.jsonl.zst": zstdStored(bytes) })).toEqual(expected);
  });

  it("text files, each a document, in the order they are named", async () => {
    const files = { "z.txt": "\ufefffirst", "a.txt": "sécond", "m.txt.gz": gzipSync("third") };
    expect(await documents(files)).toEqual(["first", "sécond", "third"]);
  });

  it("a long text as several documents", async () => {
    const paragraphs = Array.from({ length: 400 }, (_, index) => `${`Paragraph ${index}. `.repeat(40)}\n\n`);
    const found = await documents({ "long.txt": paragraphs.join("") });
    expect(found.length).toBeGreaterThan(3);
    expect(found.join("")).toBe(paragraphs.join(""));
    expect(found.every((document) => document.length <= 65_536 && document.startsWith("Paragraph"))).toBe(true);
  });

  it("Parquet: several row groups, dictionaries, missing texts", async () => {
    const texts = someTexts(500);
    const file = parquet(
      [
        { name: "id", data: texts.map((_, index) => index), type: "INT32" },
        { name: "text", data: texts, type: "STRING" },
      ],
      { rowGroupSize: 64 },
    );
    expect(await documents({ "a.parquet": file })).toEqual(texts);
    const repeated = parquet([
      { name: "text", data: Array.from({ length: 300 }, (_, index) => `t${index % 3}`), type: "STRING" },
    ]);
    expect(await documents({ "a.parquet": repeated })).toHaveLength(300);
    const gaps = parquet([{ name: "text", data: ["a", null, "", "b"], type: "STRING", nullable: true }]);
    const { result } = await prepared({ "a.parquet": gaps }, { heldOutFraction: 0 });
    expect(result).toMatchObject({ emptyDocuments: 2, index: { splits: { train: { documents: 2 } } } });
  });

  it.each([
    ["UNCOMPRESSED", (bytes: Uint8Array) => bytes],
    ["GZIP", (bytes: Uint8Array) => gzipSync(bytes)],
    ["BROTLI", (bytes: Uint8Array) => brotliCompressSync(bytes)],
    ["ZSTD", zstdStored],
  ] as const)("Parquet compressed by %s", async (codec, compress) => {
    const texts = someTexts(200);
    const file = parquet([{ name: "text", data: texts, type: "STRING" }], {
      codec,
      compressors: { [codec]: compress },
    });
    expect(await documents({ "a.parquet": file })).toEqual(texts);
  });

  it("another field where it is named", async () => {
    expect(await documents({ "a.jsonl": '{"body":"x"}' }, { textField: "body" })).toEqual(["x"]);
    const file = parquet([{ name: "content", data: ["y"], type: "STRING" }]);
    expect(await documents({ "a.parquet": file }, { textField: "content" })).toEqual(["y"]);
  });
});

describe("prepare splits", () => {
  const texts = someTexts(2000);
  const split = async (options: Partial<PrepareOptions>): Promise<{ train: string[]; heldOut: string[] }> => {
    const { to } = await prepared({ "a.jsonl": jsonLines(texts) }, options);
    const shards = await openTokenShards(directory(to));
    return { train: await documentsOf(shards.train), heldOut: await documentsOf(shards.heldOut) };
  };

  it("about the fraction that is asked for, in the order of the files", async () => {
    const { train, heldOut } = await split({ heldOutFraction: 0.1 });
    expect(heldOut.length).toBeGreaterThan(140);
    expect(heldOut.length).toBeLessThan(260);
    const held = new Set(heldOut);
    expect(train).toEqual(texts.filter((text) => !held.has(text)));
    expect(heldOut).toEqual(texts.filter((text) => held.has(text)));
  });

  it("by the text alone: a larger part holds the smaller one, other seeds choose others", async () => {
    const small = await split({ heldOutFraction: 0.05 });
    const large = new Set((await split({ heldOutFraction: 0.2 })).heldOut);
    expect(small.heldOut.every((text) => large.has(text))).toBe(true);
    const other = await split({ heldOutFraction: 0.05, seed: 1 });
    expect(other.heldOut).not.toEqual(small.heldOut);
  });

  it("equal documents to the same side", async () => {
    const twice = someTexts(300);
    const { to } = await prepared({ "a.jsonl": jsonLines([...twice, ...twice]) }, { heldOutFraction: 0.3 });
    const shards = await openTokenShards(directory(to));
    const heldOut = new Set(await documentsOf(shards.heldOut));
    expect((await documentsOf(shards.train)).some((text) => heldOut.has(text))).toBe(false);
  });

  it("few documents too: one is held out where chance would hold out none", async () => {
    const { to } = await prepared({ "a.jsonl": jsonLines(["one", "two", "three"]) });
    const shards = await openTokenShards(directory(to));
    expect(shards.train.documents).toBe(2);
    expect(shards.heldOut.documents).toBe(1);
  });

  it.each([
    ["a single document", { "a.txt": "alone, é!" }],
    ["copies of one", { "a.txt": "alone, é!", "b.txt": "alone, é!" }],
  ])("the end of %s, between characters", async (_, files) => {
    const { result, to } = await prepared(files, { heldOutFraction: 0.25 });
    const shards = await openTokenShards(directory(to));
    const copies = Object.keys(files).length;
    expect(await documentsOf(shards.train)).toEqual(new Array(copies).fill("alone, "));
    expect(await documentsOf(shards.heldOut)).toEqual(new Array(copies).fill("é!"));
    expect(shards.heldOut.bytes).toBe(3 * copies);
    expect(result).toMatchObject({ split: "contiguous", index: { preparation: { heldOutFraction: 0.25 } } });
  });

  it("more of a single document by default, and none where none is wanted", async () => {
    const { result } = await prepared({ "a.txt": "x".repeat(1000) });
    expect(result.index.splits).toMatchObject({ train: { bytes: 950 }, heldOut: { bytes: 50 } });
    expect(await documents({ "a.txt": "alone" })).toEqual(["alone"]);
  });

  it("not a single character", async () => {
    await expect(prepared({ "a.txt": "é" })).rejects.toThrow(/expected text to train on and to hold out/);
  });
});

describe("prepare writes", () => {
  it("counts, tokenizer and how it was done", async () => {
    const { result, to, folder } = await prepared({ "a.jsonl": jsonLines(["é", "", "bc"]) }, { heldOutFraction: 0 });
    expect(result).toMatchObject({ emptyDocuments: 1, skippedDocuments: 0 });
    const shards = await openTokenShards(directory(to));
    expect(shards.train).toMatchObject({ length: 6, documents: 2, bytes: 4 });
    expect(shards.index.preparation).toMatchObject({ textField: "text", heldOutFraction: 0, seed: 0 });
    expect((await shards.tokenizer()).size).toBe(257);
    await shards.verify();
    expect((await readdir(folder)).sort()).toEqual(["a.jsonl", "shards"]);
  });

  it.skipIf(process.platform === "win32")("into a folder that is named by the time", async () => {
    const { paths, folder } = await write({ "a.txt": "some text" });
    const to = join(folder, "08:35");
    await prepare({ files: paths, tokenizer, to });
    expect((await readdir(folder)).sort()).toEqual(["08:35", "a.txt"]);
    expect(await readdir(to)).toContain("index.json");
  });

  it("into an empty folder, not into one that holds something", async () => {
    const { paths, to } = await write({ "a.txt": "x", "b.txt": "y" });
    await mkdir(to);
    await prepare({ files: paths, tokenizer, to });
    expect(await readdir(to)).toContain("index.json");
    await expect(prepare({ files: paths, tokenizer, to })).rejects.toThrow(
      /expected a new or empty folder, it has \d entries/,
    );
    await expect(prepare({ files: paths, tokenizer, to: paths[0] ?? "" })).rejects.toThrow(/got a file/);
  });

  it("progress that ends at the end", async () => {
    const seen: PrepareProgress[] = [];
    const texts = someTexts(10_000);
    const { result } = await prepared(
      { "a.jsonl": jsonLines(texts), "b.txt": "more", "c.jsonl.gz": gzipSync(jsonLines(texts)) },
      { onProgress: (progress) => seen.push(progress) },
    );
    expect(seen.length).toBeGreaterThan(4);
    for (const [index, progress] of seen.entries()) {
      const before = seen[index - 1];
      expect(progress.bytesDone).toBeGreaterThanOrEqual(before?.bytesDone ?? 0);
      expect(progress.tokens).toBeGreaterThanOrEqual(before?.tokens ?? 0);
      expect(progress.remainingSeconds).toBeGreaterThanOrEqual(0);
    }
    const { train, heldOut } = result.index.splits;
    expect(seen.at(-1)).toMatchObject({ documents: 20_001, tokens: train.tokens + heldOut.tokens });
    expect(seen.at(-1)?.bytesDone).toBe(seen.at(-1)?.bytesTotal);
  });
});

describe("prepare refuses", () => {
  const bad = Uint8Array.from([...new TextEncoder().encode('{"text":"ok"}\n{"text":"'), 0xff, 0x22, 0x7d, 0x0a]);

  it.each<[string, Files, RegExp, Partial<PrepareOptions>?]>([
    ["nothing to read", {}, /expected files with text, got none/],
    ["a file of another kind", { "a.csv": "x" }, /a.csv: expected .txt, .md, .jsonl or .ndjson .* or .parquet/],
    ["empty files", { "a.txt": "", "b.jsonl": "\n" }, /the data are empty/],
    [
      "JSON lines that are not UTF-8, with file and byte",
      { "a.jsonl": bad },
      /a.jsonl: not UTF-8 at byte 23; convert the file/,
    ],
    ["compressed ones too", { "a.jsonl.gz": gzipSync(bad) }, /a.jsonl.gz: not UTF-8 at byte 23/],
    ["text that is not UTF-8", { "a.txt": Uint8Array.of(0x61, 0xe9) }, /a.txt: not UTF-8 at byte 2/],
    ["UTF-16", { "a.txt": Uint8Array.of(0xff, 0xfe, 0x61, 0) }, /a.txt: not UTF-8 at byte 0/],
    ["half a surrogate pair", { "a.jsonl": '{"text":"\\ud800"}' }, /a.jsonl: line at byte 0: half a surrogate pair/],
    ["lines that are not JSON", { "a.jsonl": '{"text":"x"}\n{"text":' }, /a.jsonl: line at byte 13: not JSON/],
    [
      "lines without the field",
      { "a.jsonl": '{"title":"x","body":"y"}' },
      /expected a string in field "text", got fields title, body; pass textField/,
    ],
    ["lines that are no objects", { "a.jsonl": "3" }, /got something else than an object/],
    [
      "Parquet that is something else",
      { "a.parquet": "PAR1 and nothing more" },
      /a.parquet: cannot be read as Parquet/,
    ],
    [
      "Parquet without the column",
      { "a.parquet": parquet([{ name: "body", data: ["x"], type: "STRING" }]) },
      /expected a column of strings named "text", got body/,
    ],
    [
      "Parquet with numbers",
      { "a.parquet": parquet([{ name: "text", data: [1, 2], type: "INT32" }]) },
      /a column of strings/,
    ],
    ["a tokenizer without files", { "a.txt": "x" }, /a tokenizer with its files/, { tokenizer: unsaved }],
    [
      "a tokenizer without end of text",
      { "a.txt": "x" },
      /no end-of-text token/,
      { tokenizer: { ...tokenizer, endOfText: undefined } },
    ],
  ])("%s", async (_, files, message, options) => {
    const { paths, folder, to } = await write(files);
    const attempt = prepare({ files: paths, tokenizer, to, ...options });
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(DataError);
    expect((await readdir(folder)).sort()).toEqual(Object.keys(files).sort());
  });

  it.each<[string, RegExp, Partial<PrepareOptions>]>([
    ["a fraction that is none", /heldOutFraction: expected/, { heldOutFraction: 1 }],
    ["a seed that is no number", /seed: expected/, { seed: 0.5 }],
    ["threads where there is no program for them", /threads: expected/, { threads: 2 }],
  ])("%s", async (_, message, options) => {
    const { paths, folder, to } = await write({ "a.txt": "x" });
    const attempt = prepare({ files: paths, tokenizer, to, ...options });
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(ConfigError);
    expect(await readdir(folder)).toEqual(["a.txt"]);
  });

  it("files that are missing, and folders", async () => {
    const { folder, to } = await write({});
    await expect(prepare({ files: [join(folder, "a.txt")], tokenizer, to })).rejects.toThrow(
      /a.txt: there is no such file/,
    );
    await expect(prepare({ files: [folder], tokenizer, to })).rejects.toThrow(/expected a file; name the files in it/);
  });

  it("nothing that may be skipped, and counts it", async () => {
    const half = '{"text":"\\udc00"}\n';
    const files = { "a.jsonl": Buffer.concat([bad, Buffer.from(half)]), "b.txt": Uint8Array.of(0xff), "c.txt": "fine" };
    const { result, to } = await prepared(files, { invalidText: "skip", heldOutFraction: 0 });
    expect(result.skippedDocuments).toBe(3);
    const shards = await openTokenShards(directory(to));
    expect(await documentsOf(shards.train)).toEqual(["ok", "fine"]);
    expect(shards.index.preparation).toMatchObject({ skippedDocuments: 3 });
  });

  it("to go on where it is told to stop, and leaves nothing behind", async () => {
    const { paths, folder, to } = await write({ "a.jsonl": jsonLines(someTexts(10_000)) });
    const stop = new AbortController();
    const attempt = prepare({ files: paths, tokenizer, to, signal: stop.signal, onProgress: () => stop.abort() });
    await expect(attempt).rejects.toMatchObject({ name: "AbortError" });
    expect(await readdir(folder)).toEqual(["a.jsonl"]);
  });
});

describe("prepare with worker threads", () => {
  let program: URL;

  beforeAll(async () => {
    const outfile = join(await temporaryFolder(), "worker.mjs");
    await build({
      entryPoints: [new URL("./worker.ts", import.meta.url).pathname],
      outfile,
      bundle: true,
      format: "esm",
      platform: "node",
      target: "node20",
      conditions: ["@sisa/source"],
    });
    program = pathToFileURL(outfile);
  });

  const hashesOf = async (folder: string): Promise<Map<string, string>> => {
    const hashes = new Map<string, string>();
    for (const name of (await readdir(folder)).sort()) {
      const content = await readFile(join(folder, name));
      hashes.set(name, createHash("sha256").update(content).digest("hex"));
    }
    return hashes;
  };

  it("gives the same bytes with any number of them", async () => {
    const { paths, folder } = await write({
      "a.jsonl": jsonLines(someTexts(10_000)),
      "b.txt": someTexts(2000, 12).join("\n"),
      "c.parquet": parquet([{ name: "text", data: someTexts(1000, 13), type: "STRING" }], { rowGroupSize: 100 }),
    });
    const results: Map<string, string>[] = [];
    for (const threads of [0, 1, 3]) {
      const to = join(folder, `shards-${threads}`);
      await prepareWith({ files: paths, tokenizer, to, threads, shardTokens: 100_000, heldOutFraction: 0.1 }, program);
      results.push(await hashesOf(to));
    }
    expect(results[0]?.size).toBeGreaterThan(10);
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  it("refuses bad text with the same error", async () => {
    const { paths, folder, to } = await write({ "a.txt": "fine", "b.txt": Uint8Array.of(0xff) });
    const attempt = prepareWith({ files: paths, tokenizer, to, threads: 2 }, program);
    await expect(attempt).rejects.toThrow(/b.txt: not UTF-8 at byte 0/);
    await expect(attempt).rejects.toBeInstanceOf(DataError);
    expect((await readdir(folder)).sort()).toEqual(["a.txt", "b.txt"]);
  });

  it("ends where a thread cannot start, or dies", async () => {
    const { paths, folder, to } = await write({ "a.txt": "one", "b.txt": "two" });
    const missing = pathToFileURL(join(folder, "missing.mjs"));
    await expect(prepareWith({ files: paths, tokenizer, to, threads: 2 }, missing)).rejects.toThrow(/missing\.mjs/);
    await writeFile(join(folder, "dies.mjs"), "process.exit(3);");
    const dies = pathToFileURL(join(folder, "dies.mjs"));
    await expect(prepareWith({ files: paths, tokenizer, to, threads: 2 }, dies)).rejects.toThrow(/ended with code 3/);
    expect(await readdir(folder)).not.toContain("shards");
  });
});
