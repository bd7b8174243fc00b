// That ids are those of the library is tested with whole tokenizers; here, what is encoded again and what is not.

import { describe, expect, it } from "vitest";
import { wordEncoder } from "./word-encoder.ts";

const byteLevel = {
  added_tokens: [{ id: 7, content: "<|x|>", special: true }],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false },
  model: { type: "BPE", dropout: null },
};

describe("wordEncoder", () => {
  it("encodes each word once, and a very long one each time", () => {
    const asked: string[] = [];
    const encode = wordEncoder(byteLevel, {}, (word) => {
      asked.push(word);
      return [word.length];
    });
    const long = "a".repeat(100);
    expect(encode?.(`one two one<|x|> two ${long} ${long}`)).toEqual([3, 4, 4, 7, 4, 101, 101]);
    expect(asked).toEqual(["one", " two", " one", ` ${long}`, ` ${long}`]);
  });

  it("forgets words that are not met again, and stays right", () => {
    let calls = 0;
    const encode = wordEncoder(byteLevel, {}, (word) => {
      calls += 1;
      return [Number(word)];
    });
    const numbers = Array.from({ length: 350_000 }, (_, index) => index);
    // The first number comes back often enough to stay.
    for (const number of numbers) expectSame(encode?.(number % 10_000 === 0 ? `0 ${number}` : ` ${number}`), number);
    expect(calls).toBe(350_001);
    expect(encode?.("0")).toEqual([0]);
    expect(encode?.(" 349999")).toEqual([349_999]);
    expect(calls).toBe(350_001);
    expect(encode?.(" 1")).toEqual([1]);
    expect(calls).toBe(350_002);
  });

  it.each([
    ["another cut", { pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }, {}],
    ["a cut of its own", { pre_tokenizer: { type: "Split", pattern: { Regex: "x" } } }, {}],
    ["another model", { model: { type: "Unigram" } }, {}],
    ["random merges", { model: { type: "BPE", dropout: 0.1 } }, {}],
    ["another normaliser", { normalizer: { type: "Lowercase" } }, {}],
    ["tokens that take spaces with them", { added_tokens: [{ id: 7, content: "<|x|>", lstrip: true }] }, {}],
    ["tokens that are malformed", { added_tokens: [{ id: "7", content: "<|x|>" }] }, {}],
    ["text that is changed first", {}, { do_lowercase_and_remove_accent: true }],
  ])("leaves to the library what has %s", (_, change, config) => {
    expect(wordEncoder({ ...byteLevel, ...change }, config, () => [])).toBeUndefined();
    expect(wordEncoder(byteLevel, {}, () => [])).toBeDefined();
  });
});

function expectSame(ids: readonly number[] | undefined, last: number): void {
  // A plain comparison: an assertion for each of so many would take minutes.
  if (ids?.at(-1) !== last) throw new Error(`expected ${last} last, got ${ids}`);
}
