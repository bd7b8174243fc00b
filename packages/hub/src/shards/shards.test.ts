import { ConfigError, DataError } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { crc32, hex32 } from "../crc32.ts";
import { jsonBytes } from "../json.ts";
import { memoryStorage } from "../storage/memory-storage.ts";
import { readBytes, type Storage } from "../storage/storage.ts";
import { seededRandom } from "../testing.ts";
import { byteTokenizer } from "../tokenizers/byte-tokenizer.ts";
import { type Tokenizer, tokenizerFingerprint } from "../tokenizers/tokenizer.ts";
import type { ShardIndex } from "./index-file.ts";
import { openTokenShards } from "./read-shards.ts";
import { tokenShardWriter } from "./write-shards.ts";

const tokenizer = byteTokenizer();
const large: Tokenizer = { ...tokenizer, size: 100_000 };
const one = { documents: 1, bytes: 10 };

async function written(options: { shardTokens?: number; tokenizer?: Tokenizer } = {}): Promise<Storage> {
  const storage = memoryStorage();
  const writer = tokenShardWriter(storage, { tokenizer, shardTokens: 4, ...options });
  await writer.append("train", [0, 1, 2, 3, 4, 5, 6, 7, 8, 256], one);
  await writer.append("heldOut", [100, 256], one);
  await writer.append("train", Uint16Array.of(10), one);
  expect(writer.tokens).toBe(13);
  await writer.finish({ seed: 7 });
  return storage;
}

describe("token shards", () => {
  it("keep both splits, their counts and their tokenizer", async () => {
    const storage = await written();
    expect(await storage.list()).toEqual([
      "held-out-00000.bin",
      "index.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "train-00000.bin",
      "train-00001.bin",
      "train-00002.bin",
    ]);
    const shards = await openTokenShards(storage);
    expect(shards.train).toMatchObject({ length: 11, documents: 2, bytes: 20 });
    expect(shards.heldOut).toMatchObject({ length: 2, documents: 1, bytes: 10 });
    expect(await shards.train.read(0, 11)).toEqual(Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 256, 10));
    expect(await shards.heldOut.read(0, 2)).toEqual(Int32Array.of(100, 256));
    expect(shards.index).toMatchObject({ dtype: "uint16", endOfText: 256, preparation: { seed: 7 } });
    expect(shards.index.tokenizer).toEqual({ size: 257, fingerprint: tokenizerFingerprint(tokenizer) });
    expect((await shards.tokenizer()).size).toBe(257);
    await shards.verify();
  });

  it("are read at any position, across shards", async () => {
    const storage = await written();
    const shards = await openTokenShards(storage);
    const whole = await shards.train.read(0, 11);
    for (let start = 0; start <= 11; start++) {
      for (let count = 0; start + count <= 11; count++) {
        expect(await shards.train.read(start, count)).toEqual(whole.slice(start, start + count));
      }
    }
    for (const [start, count] of [
      [0, 12],
      [11, 1],
      [-1, 2],
      [0.5, 1],
    ] as const) {
      await expect(shards.train.read(start, count)).rejects.toBeInstanceOf(DataError);
    }
  });

  it("are uint16 little-endian for small vocabularies and uint32 for large ones", async () => {
    const small = await readBytes(await written(), "train-00000.bin");
    expect([...small]).toEqual([0, 0, 1, 0, 2, 0, 3, 0]);
    const storage = memoryStorage();
    const writer = tokenShardWriter(storage, { tokenizer: large });
    await writer.append("train", [99_999, 1], one);
    await writer.finish();
    expect([...(await readBytes(storage, "train-00000.bin"))]).toEqual([0x9f, 0x86, 1, 0, 1, 0, 0, 0]);
    const shards = await openTokenShards(storage);
    expect(await shards.train.read(0, 2)).toEqual(Int32Array.of(99_999, 1));
  });

  it("do not depend on how ids are cut into calls", async () => {
    const random = seededRandom(8);
    const ids = Array.from({ length: 1000 }, () => Math.floor(random() * 257));
    const contents = async (sizes: () => number): Promise<unknown> => {
      const storage = memoryStorage();
      const writer = tokenShardWriter(storage, { tokenizer, shardTokens: 64 });
      for (let at = 0; at < ids.length; ) {
        const size = sizes();
        await writer.append("train", ids.slice(at, at + size), { documents: 0, bytes: 0 });
        at += size;
      }
      return writer.finish();
    };
    expect(await contents(() => 1 + Math.floor(random() * 200))).toEqual(await contents(() => 1000));
  });

  it("differ in fingerprint where they differ in content", async () => {
    const fingerprint = async (id: number): Promise<string> => {
      const storage = memoryStorage();
      const writer = tokenShardWriter(storage, { tokenizer });
      await writer.append("train", [id], one);
      await writer.finish();
      return (await openTokenShards(storage)).fingerprint;
    };
    expect(await fingerprint(1)).toBe(await fingerprint(1));
    expect(await fingerprint(1)).not.toBe(await fingerprint(2));
  });

  it("are not made of nothing", async () => {
    const storage = memoryStorage();
    await expect(tokenShardWriter(storage, { tokenizer }).finish()).rejects.toThrow(/the data are empty/);
    expect(await storage.list()).toEqual([]);
    expect(() => tokenShardWriter(storage, { tokenizer, shardTokens: 0 })).toThrow(ConfigError);
  });
});

describe("damaged token shards are refused", () => {
  const changed = async (change: (index: Record<string, unknown>) => object): Promise<Storage> => {
    const storage = await written();
    const index = JSON.parse(new TextDecoder().decode(await readBytes(storage, "index.json")));
    await storage.write("index.json", jsonBytes(change(index)));
    return storage;
  };
  const without = async (name: string): Promise<Storage> => {
    const storage = await written();
    await storage.remove(name);
    return storage;
  };
  const emptySplit = { tokens: 0, documents: 0, bytes: 0, shards: [] };

  it.each<[string, () => Promise<Storage>, RegExp]>([
    ["without an index", () => without("index.json"), /there is no index.json/],
    ["without a shard", () => without("train-00001.bin"), /expected train-00001.bin of 8 bytes, it is missing/],
    ["of another format", () => changed(() => ({ format: "x" })), /expected format "sisa-token-shards", got "x"/],
    ["of a later version", () => changed((index) => ({ ...index, version: 2 })), /expected version 1, got 2/],
    ["with an unknown dtype", () => changed((index) => ({ ...index, dtype: "uint8" })), /dtype must be/],
    ["without a tokenizer", () => changed((index) => ({ ...index, tokenizer: {} })), /tokenizer.size/],
    [
      "without a fingerprint",
      () => changed((index) => ({ ...index, tokenizer: { size: 3 } })),
      /tokenizer.fingerprint/,
    ],
    ["with an odd end of text", () => changed((index) => ({ ...index, endOfText: "x" })), /endOfText/],
    ["without splits", () => changed((index) => ({ ...index, splits: null })), /splits are missing/],
    [
      "without a split",
      () => changed((index) => ({ ...index, splits: { train: emptySplit } })),
      /splits.heldOut is missing/,
    ],
    [
      "without counts",
      () => changed((index) => ({ ...index, splits: { train: { shards: [] } } })),
      /splits.train lacks/,
    ],
    [
      "with something that is no shard",
      () => changed((index) => ({ ...index, splits: { train: { ...emptySplit, shards: [1] } } })),
      /not a shard/,
    ],
    [
      "with counts that do not add up",
      () => changed((index) => ({ ...index, splits: { train: { ...emptySplit, tokens: 5 } } })),
      /has 5 tokens, its shards 0/,
    ],
  ])("%s", async (_, make, message) => {
    const open = openTokenShards(await make());
    await expect(open).rejects.toThrow(message);
    await expect(open).rejects.toBeInstanceOf(DataError);
  });

  it("with an index that is not JSON", async () => {
    const storage = await written();
    await storage.write("index.json", new Uint8Array(4));
    await expect(openTokenShards(storage)).rejects.toBeInstanceOf(DataError);
  });

  it("with a shard that was cut short", async () => {
    const storage = await written();
    await storage.write("train-00001.bin", new Uint8Array(6));
    await expect(openTokenShards(storage)).rejects.toThrow(/of 8 bytes, it has 6 bytes/);
  });

  it("with ids that the tokenizer does not have, when they are read", async () => {
    const ids = Uint8Array.of(1, 0, 1, 1, 0, 0, 0, 0);
    const storage = await changed(({ splits, ...index }) => {
      const { train, heldOut } = splits as ShardIndex["splits"];
      const shards = train.shards.map((shard, at) => (at === 1 ? { ...shard, crc32: hex32(crc32(ids)) } : shard));
      return { ...index, splits: { heldOut, train: { ...train, shards } } };
    });
    await storage.write("train-00001.bin", ids);
    const shards = await openTokenShards(storage);
    await expect(shards.train.read(0, 11)).rejects.toThrow(/train-00001.bin is damaged: it holds id 257/);
    expect(await shards.train.read(0, 4)).toHaveLength(4);
  });

  it("with one bit turned around, when they are verified or read, but no sooner", async () => {
    const storage = await written();
    const bytes = (await readBytes(storage, "train-00001.bin")).slice();
    bytes[6] = (bytes[6] ?? 0) ^ 1;
    await storage.write("train-00001.bin", bytes);
    const shards = await openTokenShards(storage);
    await expect(shards.verify()).rejects.toThrow(/train-00001.bin does not match its checksum/);
    expect(await shards.train.read(0, 4)).toHaveLength(4);
    // Also where only sound ids of the shard are asked for.
    const read = shards.train.read(3, 2);
    await expect(read).rejects.toThrow(/train-00001.bin does not match its checksum; prepare the data again/);
    await expect(read).rejects.toBeInstanceOf(DataError);
  });

  it("by one pass over each shard, however often it is read", async () => {
    const storage = await written();
    const reads: string[] = [];
    const counting: Storage = {
      ...storage,
      async open(name) {
        const file = await storage.open(name);
        const read: typeof file.read = (start, end) => {
          if (name.endsWith(".bin")) reads.push(`${name} ${start}-${end}`);
          return file.read(start, end);
        };
        return { ...file, size: file.size, read, [Symbol.asyncDispose]: () => file[Symbol.asyncDispose]() };
      },
    };
    const { train } = await openTokenShards(counting);
    await Promise.all([train.read(0, 2), train.read(1, 2)]);
    await train.read(2, 2);
    const whole = reads.filter((read) => read === "train-00000.bin 0-8");
    expect(whole).toHaveLength(1);
    expect(reads).toHaveLength(4);
  });
});
