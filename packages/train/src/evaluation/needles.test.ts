import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { ConfigError } from "@sisa/core";
import { byteTokenizer, type Tokenizer } from "@sisa/hub";
import { expect, it } from "vitest";
import { niah, niahGrid, niahSeveral, paperNeedles } from "./needles.ts";
import type { ScoredRow } from "./scorer.ts";

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
  byteLength: () => 0,
  tokenBytes: () => new Uint8Array(),
  streamDecoder: () => ({ push: () => "", flush: () => "" }),
};

it("draws the 200 items of the paper's script, token for token", () => {
  const items = paperNeedles(tokenizer).map(({ key, value, position, ids, answer }) => ({
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

const bytes = byteTokenizer();
const textOf = (row: ScoredRow | undefined): string =>
  bytes.decode([...(row?.ids ?? []), ...(row?.targets.subarray(-1) ?? [])]);

it("hides one needle at every depth of every length, and asks for it at the end", () => {
  const task = niahGrid(bytes, 256, { lengths: [128, 200], depths: 3, itemsPerCell: 2 });
  expect(task.items).toHaveLength(12);
  const places = task.items.map(({ rows: [row] }, index) => {
    const text = textOf(row);
    const [, key, value] = /(The [a-z ]+ is) ([A-Z]+)\./.exec(text) ?? [];
    expect(text.endsWith(` ${key} ${value}`)).toBe(true);
    expect(row?.ids.length).toBe(Math.floor(index / 2) % 2 === 0 ? 128 : 200);
    expect(row?.targets.length).toBe((value?.length ?? 0) + 1);
    return text.indexOf(`${key} ${value}.`) / text.length;
  });
  // Cells go through the lengths at each depth: the needle comes first, in the middle, or right before the question.
  expect(places.slice(0, 4).every((place) => place < 0.02)).toBe(true);
  expect(places.slice(4, 8).every((place) => place > 0.2 && place < 0.6)).toBe(true);
  expect(places.slice(8).every((place) => place > 0.5)).toBe(true);
  const { heatMap, metrics } = task.summarize(task.items.map((_, index) => ({ accuracy: index < 3 ? 1 : 0 })));
  expect(heatMap?.values).toEqual([
    [1, 0.5],
    [0, 0],
    [0, 0],
  ]);
  expect(heatMap?.rows.values).toEqual(["0 %", "50 %", "100 %"]);
  expect(metrics.accuracy?.value).toBe(0.25);
});

it("hides several needles with other values each time, and asks for each by itself", () => {
  const task = niahSeveral(bytes, 512, { length: 300, needles: 3, items: 20 });
  const owners = new Set<string>();
  for (const { rows } of task.items) {
    expect(rows).toHaveLength(3);
    const [first = "", ...others] = rows.map(textOf).map((text) => text.slice(0, 260));
    expect(others.every((text) => text === first)).toBe(true);
    for (const row of rows) {
      const text = textOf(row);
      const [asked = ""] = /The [a-z ]+ is [A-Z]+$/.exec(text) ?? [];
      expect(text.split(`${asked}.`)).toHaveLength(2);
      owners.add(asked);
      expect(row.ids.length).toBeLessThanOrEqual(300);
    }
  }
  expect(owners.size).toBeGreaterThan(15);
  const [item] = task.items;
  const scores = item?.rows.map((row, index) => ({
    logProbability: -1,
    correct: index === 0 ? row.targets.length : 0,
  }));
  expect(item?.measure(scores ?? [])).toEqual({ accuracy: 1 / 3, all: 0 });
});

it("refuses lengths that the model or the needles do not allow", () => {
  expect(() => niahGrid(bytes, 256, { lengths: [300] })).toThrow("needs 300 positions, the model has 256");
  expect(() => niahGrid(bytes, 256, { lengths: [40] })).toThrow("expected lengths that hold a needle, got 40");
  expect(() => niahSeveral(bytes, 512, { length: 60 })).toThrow("60 tokens do not hold 4 needles");
  expect(() => niahSeveral(bytes, 512, { needles: 6 })).toThrow(ConfigError);
  expect(() => niah(bytes, 64)).toThrow("the model has 64");
});
