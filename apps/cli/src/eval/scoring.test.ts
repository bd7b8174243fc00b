import { DataError, i32, initialize, languageModel, preset, reference } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { arraySource } from "@sisa/train";
import { expect, it } from "vitest";
import { lastWordItems, scoreLastWords } from "./lambada.ts";
import { scoreNeedles } from "./niah.ts";
import { measurePerplexity } from "./perplexity.ts";
import { Scorer } from "./scorer.ts";

const tokenizer = byteTokenizer();
const model = languageModel(
  preset("sisa", "1m", {
    layers: 1,
    width: 8,
    heads: 2,
    stateWidth: 2,
    feedForwardWidth: 4,
    vocabularySize: 257,
    maximumLength: 64,
  }),
);
const parameters = initialize(model, 3);

/** A model that says nothing but what comes after each id here. */
function scriptedScorer(next: Readonly<Record<number, number>>): Scorer {
  const scorer = new Scorer({ model, parameters, backend: reference() });
  scorer.predictions = async (ids) => Int32Array.from(ids, (id) => next[id] ?? 0);
  return scorer;
}

it("takes the mean loss over all tokens, whatever the windows", async () => {
  await using scorer = new Scorer({ model, parameters, backend: reference() });
  const ids = tokenizer.encode("naïve text of 41 bytes, in odd windows…..");
  const source = arraySource([...ids, tokenizer.endOfText ?? 0]);
  const measured = await measurePerplexity(scorer, source, tokenizer, { sequenceLength: 7, rows: 3 });

  let nats = 0;
  for (let start = 0; start < ids.length; start += 7) {
    const length = Math.min(7, ids.length - start);
    const window = await source.read(start, length + 1);
    nats += length * (await scorer.loss(window.slice(0, -1), window.slice(1), 1));
  }
  expect(measured.tokens).toBe(ids.length);
  expect(measured.loss).toBeCloseTo(nats / ids.length, 6);
  expect(measured.perplexity).toBeCloseTo(Math.exp(nats / ids.length), 3);
  // The first byte is given, and end-of-text is none.
  expect(measured.bitsPerByte).toBeCloseTo(nats / Math.LN2 / (ids.length - 1), 6);
});

it("refuses text without a token to predict", async () => {
  await using scorer = new Scorer({ model, parameters, backend: reference() });
  await expect(measurePerplexity(scorer, arraySource([1]), tokenizer, { sequenceLength: 7 })).rejects.toThrow(
    DataError,
  );
});

it("counts a last word only where every token of it is predicted", async () => {
  const jsonl = '{"text": "to be or not to be"}\n\n{"text": "a bc"}\n';
  const items = lastWordItems(jsonl, tokenizer, 64, "file.jsonl");
  expect(items.map(({ ids, wordLength }) => [tokenizer.decode(ids), wordLength])).toEqual([
    ["to be or not to be", 3],
    ["a bc", 3],
  ]);
  const code = (letter: string): number => letter.charCodeAt(0);
  const guessesBe = { [code("o")]: code(" "), [code(" ")]: code("b"), [code("b")]: code("e") };
  expect(await scoreLastWords(scriptedScorer(guessesBe), items)).toBe(1);
  const guessesBc = { [code("a")]: code(" "), [code(" ")]: code("b"), [code("b")]: code("c") };
  expect(await scoreLastWords(scriptedScorer(guessesBc), items)).toBe(1);
  expect(await scoreLastWords(scriptedScorer({ [code(" ")]: code("b") }), items)).toBe(0);
});

it("cuts what does not fit from the left", () => {
  const [item] = lastWordItems('{"text": "to be or not"}', tokenizer, 6, "file.jsonl");
  expect(tokenizer.decode(item?.ids ?? [])).toBe("or not");
  expect(item?.wordLength).toBe(4);
});

it.each(['{"txt": "a b"}', '{"text": "word"}', "not json"])("names the line that is no passage: %s", (line) => {
  expect(() => lastWordItems(`{"text": "fine here"}\n${line}`, tokenizer, 64, "file.jsonl")).toThrow(
    "file.jsonl: line 2",
  );
});

it("counts needles whose first token is the most likely one", async () => {
  const item = { key: "", value: "", position: 0, ids: [1, 2, 3] };
  const scorer = scriptedScorer({ 3: 7 });
  expect(
    await scoreNeedles(scorer, [
      { ...item, answer: 7 },
      { ...item, answer: 8 },
    ]),
  ).toBe(1);
});

it("predicts the largest logit", async () => {
  await using scorer = new Scorer({ model, parameters, backend: reference() });
  const ids = [5, 6, 7];
  const backend = reference();
  const executable = await backend.compile(model.logitsGraph().bind({ B: 1, T: 3 }), { constants: parameters });
  const logits = await executable.run({ ids: backend.tensor(i32(1, 3), Int32Array.from(ids)) }).logits.read();
  const rows = [0, 1, 2].map((row) => Array.from(logits.subarray(row * 257, (row + 1) * 257)));
  expect([...(await scorer.predictions(ids))]).toEqual(rows.map((row) => row.indexOf(Math.max(...row))));
});
