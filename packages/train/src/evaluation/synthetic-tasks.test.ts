import { ConfigError, reference } from "@sisa/core";
import { expect, it } from "vitest";
import { echoScorer } from "../../test/echo-model.ts";
import { readBatch } from "../data/batches.ts";
import { mqarPlaces, syntheticData, syntheticSequence } from "../data/synthetic.ts";
import { evaluate } from "./evaluate.ts";
import { mqar, parity } from "./synthetic-tasks.ts";

const shape = { kind: "mqar", length: 32, vocabularySize: 40 } as const;

it("shows every pair once and asks for every key once, each followed by its value", () => {
  for (let index = 0; index < 50; index++) {
    const { ids, targets } = syntheticSequence(shape, "training", index);
    const pairs = new Map<number, number>();
    for (let at = 0; at < 16; at += 2) pairs.set(ids[at] ?? -1, ids[at + 1] ?? -1);
    expect(pairs.size).toBe(8);
    for (const [key, value] of pairs) {
      expect(key).toBeLessThan(20);
      expect(value).toBeGreaterThanOrEqual(20);
      expect(value).toBeLessThan(40);
    }
    const asked = [...mqarPlaces(shape)].map((place) => [ids[place] ?? -1, targets[place] ?? -1] as const);
    expect(new Map(asked)).toEqual(pairs);
    expect([...targets]).toEqual([...ids].map((_, place) => ids[place | 1]));
  }
});

it("gives other sequences to training, holding out and evaluating, the same ones each time", () => {
  const of = (part: "training" | "held-out" | "evaluation"): string => syntheticSequence(shape, part, 3).ids.join();
  expect(new Set([of("training"), of("held-out"), of("evaluation")]).size).toBe(3);
  expect(of("training")).toBe(of("training"));
});

it("tells after each bit whether the ones so far are odd in number", () => {
  const { ids, targets } = syntheticSequence({ kind: "parity", length: 40, vocabularySize: 2 }, "training", 1);
  let odd = 0;
  expect([...targets]).toEqual([...ids].map((bit) => (odd = (odd + bit) % 2)));
  expect(new Set(ids)).toEqual(new Set([0, 1]));
});

it("is read as whole sequences with targets of their own", async () => {
  const { training } = syntheticData({ kind: "parity", length: 8, vocabularySize: 2 });
  const batch = await readBatch(training, [16, 0], 8);
  const [third, first] = [2, 0].map((index) =>
    syntheticSequence({ kind: "parity", length: 8, vocabularySize: 2 }, "training", index),
  );
  expect([...batch.ids]).toEqual([...(third?.ids ?? []), ...(first?.ids ?? [])]);
  expect([...batch.targets]).toEqual([...(third?.targets ?? []), ...(first?.targets ?? [])]);
});

it("refuses lengths and vocabularies that no sequence fits", () => {
  expect(() => syntheticData({ ...shape, length: 30 })).toThrow("multiple of 4");
  expect(() => syntheticData({ ...shape, vocabularySize: 15 })).toThrow(ConfigError);
});

it("measures recall and parity by what the places asked about say", async () => {
  await using scorer = echoScorer(reference());
  // The model repeats the key, which is never its value.
  const recalled = await evaluate(mqar({ length: 32, vocabularySize: 40, items: 5 }), scorer);
  expect(recalled.metrics).toEqual({ accuracy: { value: 0, standardError: 0 }, all: { value: 0, standardError: 0 } });

  // It says the bit itself, which is the parity where the ones before it are even in number.
  const bits = { kind: "parity", length: 16, vocabularySize: 2 } as const;
  const expected = Array.from({ length: 6 }, (_, index) => {
    const { ids, targets } = syntheticSequence(bits, "evaluation", index);
    return { hits: [...ids].filter((bit, place) => bit === targets[place]).length / 16, last: ids[15] === targets[15] };
  });
  const { metrics } = await evaluate(parity({ length: 16, vocabularySize: 258, items: 6 }), scorer);
  expect(metrics.accuracy?.value).toBeCloseTo(expected.reduce((sum, { hits }) => sum + hits, 0) / 6, 12);
  expect(metrics.last?.value).toBeCloseTo(expected.filter(({ last }) => last).length / 6, 12);
});
