// How evaluation harnesses score texts: prompts of token ids, echo and log probabilities, many at once, one token more.
import { evaluate } from "@sisa/core";
import { expect, test } from "vitest";
import { post, startServer } from "../../test/server.ts";
import { tinyModel } from "../../test/tiny.ts";

const server = await startServer();
const own = tinyModel();
const V = own.model.config.vocabularySize;

const cases = [
  ["The capital of France is", " Paris"],
  ["The capital of France is", " Rome, or so they said, all of them, at the end of a long day in the rain"],
  ["x", "y"],
  ["Zwölf Boxkämpfer", " jagen"],
  ["Once upon a time there was a small model that learned to count. ".repeat(2), "One"],
].map(([context = "", continuation = ""]) => ({
  context: own.tokenizer.encode(context),
  continuation: own.tokenizer.encode(continuation),
}));

/** Logits after every token, from a full pass in float64. */
function fullPass(ids: readonly number[]): number[][] {
  const weights = Object.fromEntries(
    Object.entries(own.parameters).map(([name, values]) => [
      name,
      { shape: own.model.parameters[name]?.shape ?? [], data: Float64Array.from(values) },
    ]),
  );
  const inputs = { ids: { shape: [1, ids.length], data: Int32Array.from(ids) }, ...weights };
  const logits = evaluate(own.model.logitsGraph().bind({ B: 1, T: ids.length }), inputs).logits?.data ?? [];
  return ids.map((_, index) => Array.from(logits.slice(index * V, (index + 1) * V)));
}

function likeliest(ids: readonly number[]): number {
  const row = fullPass(ids).at(-1) ?? [];
  return row.indexOf(Math.max(...row));
}

/** Sum of the logarithms of the probabilities of a continuation, and whether it is the likeliest. */
function offline(context: readonly number[], continuation: readonly number[]): { sum: number; isGreedy: boolean } {
  const logits = fullPass([...context, ...continuation]);
  let sum = 0;
  let isGreedy = true;
  continuation.forEach((token, index) => {
    const row = logits[context.length + index - 1] ?? [];
    const peak = Math.max(...row);
    sum += (row[token] ?? 0) - peak - Math.log(row.reduce((total, value) => total + Math.exp(value - peak), 0));
    isGreedy &&= row[token] === peak;
  });
  return { sum, isGreedy };
}

interface Choice {
  readonly index: number;
  readonly logprobs: { readonly token_logprobs: (number | null)[]; readonly top_logprobs: Record<string, number>[] };
}

/** What lm-evaluation-harness reads out of a choice. */
function scored({ logprobs }: Choice, contextLength: number): { sum: number; isGreedy: boolean } {
  const tokens = logprobs.token_logprobs.slice(contextLength, -1);
  const top = logprobs.top_logprobs.slice(contextLength, -1);
  return {
    sum: tokens.reduce<number>((sum, value) => sum + (value ?? 0), 0),
    isGreedy: tokens.every((value, index) => value === Math.max(...Object.values(top[index] ?? {}))),
  };
}

const request = { echo: true, max_tokens: 1, logprobs: 1, temperature: 0, seed: 1234 };

test("log-likelihoods are those of a full pass", async () => {
  const prompt = cases.map(({ context, continuation }) => [...context, ...continuation]);
  const { json } = await post(server, "/v1/completions", { model: "tiny", prompt, ...request });
  expect(json.choices.map(({ index }: Choice) => index)).toEqual(cases.map((_, index) => index));
  cases.forEach(({ context, continuation }, index) => {
    const choice: Choice = json.choices[index];
    // The prompt and exactly one token more.
    expect(choice.logprobs.token_logprobs).toHaveLength(context.length + continuation.length + 1);
    const found = scored(choice, context.length);
    const expected = offline(context, continuation);
    expect(Math.abs(found.sum - expected.sum)).toBeLessThan(1e-5 * continuation.length);
    expect(found.isGreedy).toBe(expected.isGreedy);
  });
});

test("a continuation that is the likeliest is told so", async () => {
  const context = own.tokenizer.encode("Once");
  const greedy = await post(server, "/v1/completions", { prompt: context, max_tokens: 4, temperature: 0, logprobs: 0 });
  const continuation: number[] = [];
  // Ids cannot be taken from texts here, since the model says bytes that are no characters.
  for (let step = 0; step < greedy.json.usage.completion_tokens; step++) {
    continuation.push(likeliest([...context, ...continuation]));
  }
  const prompt = [...context, ...continuation];
  const { json } = await post(server, "/v1/completions", { prompt, ...request });
  expect(scored(json.choices[0], context.length).isGreedy).toBe(true);
  expect(offline(context, continuation).isGreedy).toBe(true);
});

test("the extra token counts also where it is end-of-text", async () => {
  const end = own.tokenizer.endOfText ?? 0;
  const prompt = [own.tokenizer.encode("Once")];
  const { json } = await post(server, "/v1/completions", { prompt, ...request, logit_bias: { [end]: 100 } });
  expect(json.choices[0]).toMatchObject({ text: "Once", finish_reason: "stop" });
  expect(json.choices[0].logprobs.token_logprobs).toHaveLength(5);
});

test.each(["constructor", "__proto__"])("a token that is spelled %s has its probability, too", async (text) => {
  const spelled = own.tokenizer.encode("A")[0];
  const tokenBytes = (id: number) => (id === spelled ? new TextEncoder().encode(text) : own.tokenizer.tokenBytes(id));
  const other = await startServer({}, {}, { tokenizer: { ...own.tokenizer, tokenBytes } });
  const { json } = await post(other, "/v1/completions", { prompt: "xA", ...request });
  const { tokens, token_logprobs, top_logprobs } = json.choices[0].logprobs;
  expect(tokens[1]).toBe(text);
  expect(Object.entries(top_logprobs[1])).toContainEqual([text, token_logprobs[1]]);
});

test("generation with stops, as harnesses ask for it", async () => {
  const { status, json } = await post(server, "/v1/completions", {
    model: "tiny",
    prompt: cases.map(({ context }) => context),
    max_tokens: 20,
    temperature: 0,
    seed: 1234,
    stop: ["\n\n", "Question:"],
  });
  expect(status).toBe(200);
  expect(json.choices).toHaveLength(cases.length);
});
