import { DataError, reference } from "@sisa/core";
import { byteTokenizer, memoryStorage, type Storage, tokenShardWriter } from "@sisa/hub";
import { beforeAll, describe, expect, it } from "vitest";
import { tinyModel, tinySettings } from "../../test/tiny.ts";
import { readHeldOut } from "../held-out.ts";
import { train } from "../train.ts";
import { tokenShards } from "./token-shards.ts";

const tokenizer = byteTokenizer();
let storage: Storage;
beforeAll(async () => {
  storage = memoryStorage();
  const writer = tokenShardWriter(storage, { tokenizer, shardTokens: 50 });
  for (let index = 0; index < 20; index++) {
    const text = `document ${index} has a few words, é`;
    const ids = [...tokenizer.encode(text), 256];
    await writer.append(index % 10 === 0 ? "heldOut" : "train", ids, { documents: 1, bytes: ids.length - 1 });
  }
  await writer.finish();
});

describe("tokenShards", () => {
  it("are trained on like text", async () => {
    const data = await tokenShards(storage);
    expect(data.description).toMatchObject({ documents: 20, split: "stored" });
    const run = await train({ model: tinyModel(), backend: reference(), data, ...tinySettings, steps: 3 });
    expect(run.heldOutLoss).toBeLessThan(Math.log(257) + 0.1);
    expect(run.bitsPerByte).toBeGreaterThan(0);
  });

  it("keep the count of bytes where their tokenizer is not beside them", async () => {
    const bare = memoryStorage();
    for (const name of await storage.list()) {
      if (name.startsWith("tokenizer")) continue;
      await using file = await storage.open(name);
      await bare.write(name, await file.read(0, file.size));
    }
    const data = await tokenShards(bare);
    expect(data.tokenizer).toBeUndefined();
    const heldOut = await readHeldOut(data, { sequenceLength: 8, microBatchSize: 2, heldOutBatches: 2 });
    // One token in about 36 is an end of text.
    expect(heldOut.bytesPerToken).toBeCloseTo(35 / 36, 1);
  });

  it("say so where there are none", async () => {
    await expect(tokenShards(memoryStorage())).rejects.toSatisfy((error) => DataError.isInstance(error));
  });
});
