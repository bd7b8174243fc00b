// Every task on a model whose answers are known by construction, against values worked out by hand.
import { DataError, reference } from "@sisa/core";
import { byteTokenizer, type Tokenizer } from "@sisa/hub";
import { describe, expect, it } from "vitest";
import { changed, echoScorer, repeated } from "../../test/echo-model.ts";
import { arraySource } from "../data/training-data.ts";
import { evaluate, type TaskResult } from "./evaluate.ts";
import { encodePair } from "./rows.ts";
import { findTask, type TaskSource, taskNames } from "./tasks.ts";

const tokenizer = byteTokenizer();

/** Runs a task on the model that repeats the last token. */
async function measured(
  name: string,
  lines: readonly unknown[] = [],
  change: Partial<TaskSource> = {},
): Promise<TaskResult> {
  await using scorer = echoScorer(reference(), { maximumLength: change.maximumLength ?? 64 });
  const task = await findTask(name).create({
    tokenizer,
    maximumLength: 64,
    vocabularySize: 258,
    items: async (set) => ({ path: `${set}.jsonl`, text: lines.map((line) => JSON.stringify(line)).join("\n") }),
    text: async () => ({ tokens: arraySource(tokenizer.encode("aabb")), sequenceLength: 8 }),
    documents: async () => [{ name: "a.txt", text: "aab" }],
    ...change,
  });
  return await evaluate(task, scorer);
}

/** The tokenizer, and the texts that were encoded with it. */
function spying(): { readonly seen: string[]; readonly spy: Tokenizer } {
  const seen: string[] = [];
  const encode = (text: string): number[] => {
    seen.push(text);
    return tokenizer.encode(text);
  };
  return { seen, spy: { ...tokenizer, encode } };
}

const value = ({ metrics }: TaskResult, name: string): number => metrics[name]?.value ?? Number.NaN;

describe("lambada", () => {
  // The word of the first passage is " " and repeats what stands before it; the second and third differ in all bytes, or one.
  const passages = ["x  ", "the cat", "a  b"].map((text) => ({ text }));

  it("counts a word only where every token of it is the most likely one", async () => {
    const result = await measured("lambada", passages);
    expect(result).toMatchObject({ items: 3, headline: "accuracy", protocol: expect.stringContaining("paper") });
    expect(value(result, "accuracy")).toBeCloseTo(1 / 3, 12);
    // s^2 = (2/3)^2 + 2 (1/3)^2 over n - 1 = 2, divided by n = 3.
    expect(result.metrics.accuracy?.standardError).toBeCloseTo(1 / 3, 12);
  });

  it("has the harness's perplexity, exp of the mean loss of a word with the spaces before it", async () => {
    const result = await measured("lambada:harness", passages);
    expect(value(result, "acc")).toBe(0);
    const nats = -(repeated + changed + 4 * changed + (changed + repeated + changed)) / 3;
    expect(Math.log(value(result, "perplexity"))).toBeCloseTo(nats, 5);

    const spaceless: Tokenizer = { ...tokenizer, encode: (text) => tokenizer.encode(text.replaceAll(" ", "")) };
    const guessed = await measured("lambada:harness", [{ text: "so oo" }, { text: "so on" }], { tokenizer: spaceless });
    expect(value(guessed, "acc")).toBe(0.5);
  });

  it("cuts what does not fit from the left: the paper within the positions, the harness with one token more", async () => {
    const long = [{ text: "so hh" }];
    expect(value(await measured("lambada", long, { maximumLength: 4 }), "accuracy")).toBe(0);
    expect(value(await measured("lambada", long, { maximumLength: 2 }), "accuracy")).toBe(1);
    const harness = await measured("lambada:harness", long, { maximumLength: 2 });
    expect(Math.log(value(harness, "perplexity"))).toBeCloseTo(-changed - repeated, 5);
  });

  it.each(['{"txt": "a b"}', '{"text": "word"}', "not json"])("names the line that is no passage: %s", async (line) => {
    const items = async () => ({ path: "file.jsonl", text: `{"text": "fine here"}\n${line}` });
    await expect(measured("lambada", [], { items })).rejects.toThrow("file.jsonl: line 2: expected");
    await expect(measured("lambada", [], { items })).rejects.toThrow(DataError);
  });
});

describe("multiple choice", () => {
  it("hellaswag (paper) joins context and ending without a space and divides by tokens", async () => {
    const scene = { ctx: "ba", activity_label: "X", ctx_a: "ba", ctx_b: "" };
    // By token: "ac" has (repeated + changed) / 2, "aac" (2 repeated + changed) / 3, "b" changed.
    const result = await measured("hellaswag", [
      { ...scene, endings: ["ac", "aac", "b"], label: "1" },
      { ...scene, endings: ["ac", "aac", "b"], label: 0 },
    ]);
    expect(value(result, "accuracy")).toBe(0.5);
    expect(result.metrics.accuracy?.standardError).toBe(0.5);
  });

  it("hellaswag:harness has a space between, and its own text", async () => {
    const item = {
      ctx: "unused",
      activity_label: "Jumping",
      ctx_a: "He [title] runs [x]",
      ctx_b: "she FALLS  off ",
      label: 1,
    };
    const { seen, spy } = spying();
    await measured("hellaswag:harness", [{ ...item, endings: ["[step] a", "b [title] c"] }], { tokenizer: spy });
    expect(seen).toEqual([
      "Jumping: He. runs She falls off  a",
      "Jumping: He. runs She falls off",
      "Jumping: He. runs She falls off b. c",
      "Jumping: He. runs She falls off",
    ]);
  });

  it("hellaswag:harness names what a file lacks", async () => {
    await expect(measured("hellaswag:harness", [{ ctx: "a", endings: ["b", "c"], label: 0 }])).rejects.toThrow("ctx_a");
  });

  it("acc takes the likeliest answer, acc_norm the likeliest a character", async () => {
    const question = "q";
    // Sums: " b" 2 changed; " cccc" 2 changed + 3 repeated. By character: 2 changed / 1, (2 changed + 3 repeated) / 4.
    const item = { question, choices: { text: ["b", "cccc"], label: ["A", "B"] } };
    const result = await measured("arc_easy:harness", [
      { ...item, answerKey: "A" },
      { ...item, answerKey: "B" },
    ]);
    expect(result).toMatchObject({ items: 2, metrics: { acc: { value: 0.5 }, acc_norm: { value: 0.5 } } });
    expect(2 * changed).toBeGreaterThan(2 * changed + 3 * repeated);
    expect(2 * changed).toBeLessThan((2 * changed + 3 * repeated) / 4);
    const onlyFirst = await measured("arc_easy:harness", [{ ...item, answerKey: "A" }]);
    expect([value(onlyFirst, "acc"), value(onlyFirst, "acc_norm")]).toEqual([1, 0]);
  });

  it("acc_norm counts characters, not bytes or UTF-16 units", async () => {
    // " 𝒳𝒳" is nine bytes, two characters; its sum over 2 must lose to " abc" over 3.
    const item = { goal: "q", sol1: "𝒳𝒳", sol2: "abc", label: 1 };
    const result = await measured("piqa", [item]);
    expect(result.task).toBe("piqa:harness");
    expect((9 * changed) / 2).toBeLessThan((4 * changed) / 3);
    expect((9 * changed) / 8).toBeGreaterThan((4 * changed) / 3);
    expect(value(result, "acc_norm")).toBe(1);
  });

  it("arc_easy (paper) has no template, divides by tokens and leaves a fifth answer out", async () => {
    const choices = { text: ["b", "cccc", "d", "e", "f"], label: ["A", "B", "C", "D", "E"] };
    const result = await measured("arc_easy", [
      { question: "q", choices, answerKey: "B" },
      { question: "q", choices, answerKey: "E" },
    ]);
    expect(result).toMatchObject({ items: 1, metrics: { accuracy: { value: 1 } } });
  });

  it("winogrande (paper) divides the whole sentence by all its tokens; the harness scores what follows", async () => {
    // "aa d" : repeated + 2 changed over 4. "bc d": 3 changed over 4. After either beginning, " d" is equally likely.
    const gap = { sentence: "_ d", option1: "bc", option2: "aa" };
    const paper = await measured("winogrande", [{ ...gap, answer: "2" }]);
    expect(value(paper, "accuracy")).toBe(1);
    const harness = await measured("winogrande:harness", [
      { ...gap, answer: "1" },
      { ...gap, answer: "2" },
    ]);
    // The first of equal ones is taken.
    expect(value(harness, "acc")).toBe(0.5);
    expect(harness.metrics).not.toHaveProperty("acc_norm");
  });

  it("puts the sentences of reshaped files together again", async () => {
    const { seen, spy } = spying();
    const prefixes = ["Ann", "Bo"];
    await measured(
      "winogrande",
      [
        { prefixes, suffix: "won.", label: 0 },
        { prefixes, suffix: "'s car", label: 1 },
      ],
      {
        tokenizer: spy,
      },
    );
    expect(seen).toEqual(["Ann won.", "Bo won.", "Ann's car", "Bo's car"]);
  });
});

describe("encodePair", () => {
  /** "ab" is one token where it stands together. */
  const merging: Tokenizer = {
    ...tokenizer,
    encode: (text) => [...text.matchAll(/ab|./gs)].map(([part]) => part.charCodeAt(0) + part.length),
  };

  it("moves the spaces at the end of the context to the continuation", () => {
    expect(encodePair(tokenizer, "a  ", "b")).toEqual({ context: [97], continuation: [32, 32, 98] });
  });

  it("encodes both parts together, so that a token across the seam counts to neither alone", () => {
    expect(encodePair(merging, "xa", "bc")).toEqual({ context: [121, 99], continuation: [100] });
  });

  it("begins an empty context with end-of-text", () => {
    expect(encodePair(tokenizer, " ", "b")).toEqual({ context: [256], continuation: [32, 98] });
  });
});

describe("perplexity", () => {
  it("is the loss of all tokens but the first, in windows, the last one shorter", async () => {
    const tokens = arraySource(tokenizer.encode("aabbbc"));
    const result = await measured("perplexity", [], { text: async () => ({ tokens, sequenceLength: 3 }) });
    // Windows: "aabb" (repeated, changed, repeated) and "bbc" (repeated, changed).
    const loss = -(3 * repeated + 2 * changed) / 5;
    expect(result.items).toBe(2);
    expect(value(result, "loss")).toBeCloseTo(loss, 5);
    expect(Math.log(value(result, "perplexity"))).toBeCloseTo(loss, 5);
    expect(value(result, "bitsPerByte")).toBeCloseTo(loss / Math.LN2, 5);
  });

  it("counts characters of several bytes that windows cut in two, and no bytes for end-of-text", async () => {
    const ids = [...tokenizer.encode("é…é"), 256];
    const result = await measured("perplexity", [], {
      text: async () => ({ tokens: arraySource(ids), sequenceLength: 2 }),
    });
    // Seven tokens are predicted, all but the first; six of them are bytes.
    expect(value(result, "bitsPerByte")).toBeCloseTo((-changed * 7) / Math.LN2 / 6, 5);
  });

  it("refuses text without a token to predict", async () => {
    const text = async () => ({ tokens: arraySource([1]), sequenceLength: 3 });
    await expect(measured("perplexity", [], { text })).rejects.toThrow(DataError);
  });

  it("rolls over documents as the harness does: each token once, the first after end-of-text", async () => {
    const documents = async () => [
      { name: "a", text: "aab b" },
      { name: "b", text: "cc" },
    ];
    const result = await measured("perplexity:harness", [], { documents, maximumLength: 2 });
    const nats = -(1 * repeated + 4 * changed + repeated + changed);
    expect(Math.log(value(result, "word_perplexity"))).toBeCloseTo(nats / 3, 5);
    expect(Math.log(value(result, "byte_perplexity"))).toBeCloseTo(nats / 7, 5);
    expect(value(result, "bits_per_byte")).toBeCloseTo(nats / 7 / Math.LN2, 5);
  });
});

it("asks every task of sets for its file by name", () => {
  const sets = taskNames.map((name) => findTask(name).set).filter((set) => set !== undefined);
  expect([...new Set(sets)].sort()).toEqual(["arc_easy", "hellaswag", "lambada", "piqa", "winogrande"]);
  expect(() => findTask("chess")).toThrow("tasks: expected perplexity");
  expect(() => findTask("toString")).toThrow('got "toString"');
});
