import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Tokenizer } from "@sisa/hub";
import { expect, it } from "vitest";
import { needleItems } from "./niah.ts";

/** The items that Python's `random` and the GPT-NeoX tokenizer give. */
const expected = JSON.parse(
  readFileSync(new URL("../../test/fixtures/niah-paper-seed-42.json", import.meta.url), "utf8"),
);

/** The GPT-NeoX tokenizer for the words of the protocol. */
const words: Readonly<Record<string, readonly number[]>> = {
  The: [510],
  " The": [380],
  " quick": [3158],
  " brown": [8516],
  " fox": [30013],
  " jumps": [27287],
  " over": [689],
  " the": [253],
  " lazy": [22658],
  " dog": [4370],
  ".": [15],
  " ": [209],
  " is": [310],
  " secret": [4279],
  " code": [2127],
  " password": [9868],
  " answer": [3662],
  " key": [2234],
  " number": [1180],
  " magic": [10721],
  " word": [3159],
  " ALPHA": [6589, 37660],
  " BRAVO": [378, 5214, 24859],
  " CHARLIE": [30752, 45, 9051],
  " DELTA": [38336, 7656],
  " ECHO": [444, 28510],
};

const tokenizer: Tokenizer = {
  size: 50_277,
  endOfText: 0,
  encode: (text) =>
    [...text.matchAll(/ ?[A-Za-z]+|\.| /g)].flatMap(([word]) => {
      const ids = words[word];
      if (ids === undefined) throw new Error(`no ids for "${word}"`);
      return ids;
    }),
  decode: () => "",
  streamDecoder: () => ({ push: () => "", flush: () => "" }),
};

it("draws the 200 items of the paper's script, token for token", () => {
  const items = needleItems(tokenizer).map(({ key, value, position, ids, answer }) => ({
    key,
    value,
    position,
    length: ids.length,
    answer_token: answer,
    ids_sha256: createHash("sha256")
      .update(Buffer.from(Int32Array.from(ids).buffer))
      .digest("hex"),
  }));
  expect(items).toHaveLength(200);
  expect(items).toEqual(expected.items);
});
