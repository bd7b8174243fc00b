import { ConfigError, DataError } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { describe, expect, it } from "vitest";
import { textDocuments } from "./text-documents.ts";
import type { TokenSource } from "./training-data.ts";

/** One id a letter, 0 as end of text. */
const letters: Tokenizer = {
  size: 128,
  endOfText: 0,
  encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0)),
  decode: (ids) => String.fromCharCode(...Array.from(ids)),
  byteLength: (ids) => ids.length,
  tokenBytes: (id) => Uint8Array.of(id),
  streamDecoder: () => ({ push: (id) => String.fromCharCode(id), flush: () => "" }),
};

const textOf = async (source: TokenSource): Promise<string> =>
  String.fromCharCode(...(await source.read(0, source.length)));

describe("textDocuments", () => {
  it("joins documents by end-of-text and holds out whole ones", async () => {
    const documents = Array.from({ length: 40 }, (_, index) => `text ${String(index).padStart(2, "0")}`);
    const data = textDocuments(documents, letters, { heldOutFraction: 0.1 });
    const training = (await textOf(data.training)).split("\0").slice(0, -1);
    const heldOut = (await textOf(data.heldOut)).split("\0").slice(0, -1);
    expect(heldOut).toHaveLength(4);
    expect([...training, ...heldOut].sort()).toEqual(documents);
    expect(data.description).toMatchObject({ documents: 40, split: "documents" });
  });

  it("holds the same documents out in whatever order they come", async () => {
    const documents = Array.from({ length: 40 }, (_, index) => `text ${String(index).padStart(2, "0")}`);
    const one = await textOf(textDocuments(documents, letters).heldOut);
    const other = await textOf(textDocuments([...documents].reverse(), letters).heldOut);
    expect(one.split("\0").sort()).toEqual(other.split("\0").sort());
  });

  it("cuts the end off a single document", async () => {
    const data = textDocuments(["abcdefghijklmnopqrs"], letters, { heldOutFraction: 0.25 });
    expect(await textOf(data.training)).toBe("abcdefghijklmno");
    expect(await textOf(data.heldOut)).toBe("pqrs\0");
    expect(data.description.split).toBe("contiguous");
  });

  it("comes near the wanted share where documents are of very different sizes", () => {
    const data = textDocuments(["a".repeat(10_000), "b".repeat(9000), "c", "d"], letters, { heldOutFraction: 0.1 });
    expect(data.heldOut.length).toBe(Math.round(0.1 * 19_006));
    expect(data.training.length + data.heldOut.length).toBe(19_006);
  });

  it("leaves something to train on where all documents together are small", () => {
    const data = textDocuments(["ab", "cd"], letters, { heldOutFraction: 0.9 });
    expect(data.training.length).toBeGreaterThan(0);
    expect(data.heldOut.length).toBeGreaterThan(0);
  });

  it("has a fingerprint of the tokens, not of the names", () => {
    const one = textDocuments([{ name: "a", text: "same text" }], letters);
    expect(textDocuments([{ name: "b", text: "same text" }], letters).fingerprint).toBe(one.fingerprint);
    expect(textDocuments(["same texu"], letters).fingerprint).not.toBe(one.fingerprint);
  });

  it("keeps ids of large vocabularies", async () => {
    const wide: Tokenizer = { ...letters, size: 100_000, endOfText: 99_999, encode: () => [70_000, 80_000, 1, 2] };
    const data = textDocuments(["x"], wide, { heldOutFraction: 0.4 });
    expect([...(await data.training.read(0, 3))]).toEqual([70_000, 80_000, 1]);
    expect([...(await data.heldOut.read(0, 2))]).toEqual([2, 99_999]);
  });

  it("refuses to train on nothing", () => {
    expect(() => textDocuments([], letters)).toThrow(DataError);
    expect(() => textDocuments(["", ""], letters, { name: "corpus" })).toThrow(
      "corpus: expected text to train on, got 0 tokens",
    );
    expect(() => textDocuments(["abc"], letters, { heldOutFraction: 1 })).toThrow(ConfigError);
  });
});
