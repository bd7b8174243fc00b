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

  it("counts every byte of a text once, wherever it is cut into windows", () => {
    const ids = Int32Array.from(bytes.encode("a€😀é\ufffd".repeat(7)));
    for (let length = 1; length < 20; length++) {
      let sum = 0;
      for (let at = 0; at < ids.length; at += length) sum += textBytes(bytes, ids.subarray(at, at + length));
      expect(sum, `windows of ${length}`).toBe(ids.length);
    }
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
