import type { Tokenizer } from "@sisa/hub";
import { byteTokenizer } from "@sisa/hub";
import { describe, expect, it } from "vitest";
import { textDocuments } from "./data/text-documents.ts";
import { readHeldOut, textBytes } from "./held-out.ts";

const bytes = byteTokenizer();

describe("textBytes", () => {
  it("counts the bytes of text and no end-of-text", () => {
    expect(textBytes(bytes, Int32Array.from([...bytes.encode("aé€😀"), 256, 97]))).toBe(1 + 2 + 3 + 4 + 1);
    expect(textBytes(bytes, Int32Array.of(256, 256))).toBe(0);
  });

  it("counts one byte for what is left of a character that was cut", () => {
    expect(textBytes(bytes, Int32Array.from(bytes.encode("€a").slice(1)))).toBe(3);
    expect(textBytes(bytes, Int32Array.from(bytes.encode("a€").slice(0, 3)))).toBe(2);
  });

  it("counts what tokens of several bytes stand for", () => {
    const words: Tokenizer = { ...bytes, decode: (ids) => "word ".repeat(ids.length) };
    expect(textBytes(words, Int32Array.of(1, 2, 3))).toBe(15);
  });
});

describe("readHeldOut", () => {
  it("reads fixed batches and the bytes of their targets", async () => {
    const data = textDocuments(["a".repeat(1000)], bytes, { heldOutFraction: 0.1 });
    const heldOut = await readHeldOut(data, { sequenceLength: 8, microBatchSize: 4, heldOutBatches: 2 });
    expect(heldOut).toMatchObject({ rows: 4, sequenceLength: 8, bytesPerToken: 1 });
    expect(heldOut.batches).toHaveLength(2);
    expect(heldOut.batches[0]?.ids).toHaveLength(32);
  });

  it("does without bytes where there is no tokenizer", async () => {
    const { tokenizer: _, ...data } = textDocuments(["a".repeat(1000)], bytes);
    const heldOut = await readHeldOut(data, { sequenceLength: 8, microBatchSize: 2, heldOutBatches: 1 });
    expect(heldOut.bytesPerToken).toBeUndefined();
  });
});
