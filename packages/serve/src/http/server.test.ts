// Every route, and every way to ask for what cannot be.
import { describe, expect, test } from "vitest";
import { frames, post, startServer } from "../../test/server.ts";
import { tinyModel } from "../../test/tiny.ts";

const server = await startServer();
const { tokenizer } = tinyModel();
const get = async (path: string) => {
  const response = await fetch(server.url + path);
  return { status: response.status, headers: response.headers, json: await response.json() };
};
const complete = (body: object) => post(server, "/v1/completions", { model: "tiny", seed: 1, ...body });
const chat = (body: object) =>
  post(server, "/v1/chat/completions", { model: "tiny", seed: 1, max_tokens: 5, messages: [hello], ...body });
const hello = { role: "user", content: "Hello" };

describe("completions", () => {
  test("of a text", async () => {
    const { status, json, headers } = await complete({ prompt: "Once", max_tokens: 5 });
    expect(status).toBe(200);
    expect(headers.get("x-request-id")).toMatch(/./);
    const named = await post(server, "/v1/completions", { prompt: "x", n: 0 }, { headers: { "x-request-id": "mine" } });
    expect(named.headers.get("x-request-id")).toBe("mine");
    expect(json).toEqual({
      id: expect.stringMatching(/^cmpl-/),
      object: "text_completion",
      created: expect.any(Number),
      model: "tiny",
      system_fingerprint: expect.stringMatching(/^sisa-.*-onnxruntime$/),
      choices: [{ index: 0, text: expect.any(String), logprobs: null, finish_reason: "length" }],
      usage: {
        prompt_tokens: 4,
        completion_tokens: 5,
        total_tokens: 9,
        prompt_tokens_details: { cached_tokens: expect.any(Number) },
      },
    });
  });

  test("of token ids, of several prompts, of none", async () => {
    const text = await complete({ prompt: "Once" });
    expect((await complete({ prompt: tokenizer.encode("Once") })).json.choices).toEqual(text.json.choices);
    const two = await complete({ prompt: [tokenizer.encode("Once"), tokenizer.encode("Two")], n: 2 });
    expect(two.json.choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2, 3]);
    expect(two.json.usage).toMatchObject({ prompt_tokens: 7, completion_tokens: 64 });
    expect((await complete({ prompt: "" })).json.usage.prompt_tokens).toBe(1);
  });

  test("echo gives the prompt back, max_tokens 0 nothing else", async () => {
    const { text } = (await complete({ prompt: "Once", max_tokens: 4 })).json.choices[0];
    expect((await complete({ prompt: "Once", max_tokens: 4, echo: true })).json.choices[0].text).toBe(`Once${text}`);
    const none = await complete({ prompt: "Once", max_tokens: 0, echo: true });
    expect(none.json.choices[0]).toMatchObject({ text: "Once", finish_reason: "length" });
    // Half a character at the end of a prompt is nobody's text.
    const half = [...new TextEncoder().encode("aé")].slice(0, -1);
    for (const [echo, text] of [
      [true, "a"],
      [false, ""],
    ] as const) {
      expect((await complete({ prompt: half, max_tokens: 0, echo })).json.choices[0].text).toBe(text);
    }
  });

  test("best_of chooses the likeliest", async () => {
    const request = { prompt: "Once", max_tokens: 6, logprobs: 0 };
    const mean = ({ logprobs }: { logprobs: { token_logprobs: number[] } }) =>
      logprobs.token_logprobs.reduce((a, b) => a + b, 0) / logprobs.token_logprobs.length;
    const all = (await complete({ ...request, n: 5 })).json.choices;
    const best = (await complete({ ...request, best_of: 5 })).json.choices;
    expect(best).toHaveLength(1);
    expect(mean(best[0])).toBe(Math.max(...all.map(mean)));
    expect((await complete({ ...request, best_of: 5, stream: true })).json.error.param).toBe("best_of");
    expect((await complete({ ...request, best_of: 0 })).status).toBe(200);
  });

  test("log probabilities of answer and prompt", async () => {
    const { logprobs } = (await complete({ prompt: "Once", max_tokens: 3, logprobs: 2, echo: true })).json.choices[0];
    for (const list of Object.values(logprobs)) expect(list).toHaveLength(7);
    expect(logprobs.tokens.slice(0, 4)).toEqual(["O", "n", "c", "e"]);
    expect(logprobs.token_logprobs[0]).toBe(null);
    expect(logprobs.top_logprobs[0]).toBe(null);
    expect(logprobs.text_offset.slice(0, 5)).toEqual([0, 1, 2, 3, 4]);
    for (const [index, top] of logprobs.top_logprobs.entries()) {
      if (index > 0) expect(top[logprobs.tokens[index]]).toBe(logprobs.token_logprobs[index]);
    }
    const zero = (await complete({ prompt: "Once", max_tokens: 2, logprobs: 0 })).json.choices[0].logprobs;
    expect(zero.top_logprobs.map((top: object) => Object.keys(top).length)).toEqual([1, 1]);
  });
});

describe("chat", () => {
  test("answers by the template", async () => {
    const { status, json } = await chat({});
    expect(status).toBe(200);
    expect(json.object).toBe("chat.completion");
    const { text } = (await complete({ prompt: "user: Hello\nassistant: ", max_tokens: 5 })).json.choices[0];
    expect(json.choices).toEqual([
      {
        index: 0,
        message: { role: "assistant", content: text, refusal: null },
        logprobs: null,
        finish_reason: "length",
      },
    ]);
    const parts = [
      {
        role: "user",
        content: [
          { type: "text", text: "Hel" },
          { type: "text", text: "lo" },
        ],
      },
    ];
    expect((await chat({ messages: parts })).json.choices).toEqual(json.choices);
    const system = async (role: string) => (await chat({ messages: [{ role, content: "x" }, hello] })).json.choices;
    expect(await system("developer")).toEqual(await system("system"));
  });

  test("log probabilities with bytes", async () => {
    const { content } = (await chat({ logprobs: true, top_logprobs: 3 })).json.choices[0].logprobs;
    expect(content).toHaveLength(5);
    for (const { token, bytes, top_logprobs: top } of content) {
      expect(token).toEqual(spelled(bytes));
      expect(top).toHaveLength(3);
    }
  });

  test("max_tokens 0 gives an empty answer", async () => {
    expect((await chat({ max_tokens: 0 })).json.choices[0].message.content).toBe("");
  });
});

/** What a token is called whose bytes are known, or that has none. */
function spelled(bytes: number[] | null): unknown {
  if (bytes === null) return expect.stringMatching(/^token_id:\d+$/);
  const text = new TextDecoder().decode(Uint8Array.from(bytes));
  if (!text.includes("\ufffd")) return text;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}

test("no two tokens look alike, parts of characters and rows without text among them", async () => {
  const { vocabularySize } = tinyModel().model.config;
  const names = new Set<string>();
  // Each token is made the only one that can come.
  for (let first = 0; first < vocabularySize; first += 64) {
    const ids = Array.from({ length: Math.min(64, vocabularySize - first) }, (_, index) => first + index);
    const answers = await Promise.all(
      ids.map(async (id) => {
        const forced = { max_tokens: 1, temperature: 0, logit_bias: { [id]: 100 }, ignore_eos: true };
        const text = await complete({ prompt: "x", ...forced, logprobs: 1 });
        const said = await chat({ ...forced, logprobs: true });
        return [text.json.choices[0].logprobs.tokens[0], said.json.choices[0].logprobs.content[0]] as const;
      }),
    );
    answers.forEach(([name, { token, bytes }], index) => {
      const id = ids[index] ?? 0;
      const expected = id < 256 ? [id] : id === 256 ? [...new TextEncoder().encode("<|endoftext|>")] : null;
      expect(bytes).toEqual(expected);
      expect(token).toEqual(spelled(bytes));
      expect(name).toBe(token);
      names.add(name);
    });
  }
  expect(names.size).toBe(vocabularySize);
});

describe("streams", () => {
  test("end each choice once, then usage where asked for", async () => {
    const body = { model: "tiny", seed: 3, prompt: ["Once", "Two"], n: 2, max_tokens: 12 };
    const all = await frames(server, "/v1/completions", { ...body, stream_options: { include_usage: true } });
    const { choices: none, usage } = all.pop();
    expect(none).toEqual([]);
    expect(usage).toMatchObject({ prompt_tokens: 7, completion_tokens: 48 });
    for (const frame of all) expect(frame.usage).toBe(null);
    const ends = all.filter(({ choices }) => choices[0].finish_reason !== null);
    expect(ends.map(({ choices }) => choices[0].index).sort()).toEqual([0, 1, 2, 3]);
    for (const frame of await frames(server, "/v1/completions", body)) expect(frame).not.toHaveProperty("usage");
    const usages = await frames(server, "/v1/completions", {
      ...body,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    });
    for (const frame of usages) expect(frame.usage.prompt_tokens).toBe(7);
  });

  test("of chat begin with the role and end with an empty delta", async () => {
    const all = await frames(server, "/v1/chat/completions", { messages: [hello], max_tokens: 5, seed: 1 });
    expect(all[0].choices[0].delta).toEqual({ role: "assistant", content: "" });
    expect(all.at(-1).choices[0]).toMatchObject({ delta: {}, finish_reason: "length" });
    expect(new Set(all.map(({ object }) => object))).toEqual(new Set(["chat.completion.chunk"]));
  });
});

test("models, tokens, health, version and page", async () => {
  const model = { id: "tiny", object: "model", created: expect.any(Number), owned_by: "sisa", max_model_len: 256 };
  expect((await get("/v1/models")).json).toEqual({ object: "list", data: [model] });
  expect((await get("/v1/models/tiny")).json).toEqual(model);
  const tokenized = await post(server, "/tokenize", { prompt: "hé", return_token_strs: true });
  expect(tokenized.json).toEqual({
    count: 3,
    max_model_len: 256,
    tokens: [104, 195, 169],
    token_strs: ["h", "bytes:\\xc3", "bytes:\\xa9"],
  });
  expect((await post(server, "/detokenize", { tokens: [104, 195, 169] })).json).toEqual({ prompt: "hé" });
  const conversation = await post(server, "/tokenize", { messages: [hello] });
  expect(tokenizer.decode(conversation.json.tokens)).toBe("user: Hello\nassistant: ");
  expect((await get("/tokenizer_info")).json).toMatchObject({
    eos_token: "<|endoftext|>",
    chat_template: expect.any(String),
  });
  expect((await get("/health")).json).toEqual({ status: "ok" });
  expect((await get("/ready")).json).toEqual({ status: "ready" });
  expect((await get("/version")).json).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) });
  const page = await fetch(server.url);
  expect(page.headers.get("content-type")).toMatch("text/html");
  expect(await page.text()).toContain("<h1>tiny</h1>");
});

test("metrics count what was done", async () => {
  const counted = await startServer();
  const value = async (name: string) => {
    const text = await (await fetch(`${counted.url}/metrics`)).text();
    const line = text.split("\n").find((candidate) => candidate.startsWith(`sisa:${name} `));
    return Number(line?.split(" ").at(-1));
  };
  const body = { prompt: "Once upon", max_tokens: 10, ignore_eos: true };
  for (let index = 0; index < 3; index++) await post(counted, "/v1/completions", body);
  expect(await value('request_success_total{finished_reason="length"}')).toBe(3);
  expect(await value("generation_tokens_total")).toBe(30);
  expect(await value("time_to_first_token_seconds_count")).toBe(3);
  expect(await value("inter_token_latency_seconds_count")).toBe(27);
  expect(await value("e2e_request_latency_seconds_count")).toBe(3);
  expect(await value("prefix_cache_queries_total")).toBe(27);
  expect(await value("prefix_cache_hits_total")).toBe(16);
  expect(await value("prompt_tokens_total")).toBe(11);
  expect(await value("num_requests_running")).toBe(0);
  expect(await value("kv_cache_usage_perc")).toBe(0);
});

describe("what cannot be is refused with the four keys", () => {
  const text = { prompt: "x", max_tokens: 1 };
  const error = (status: number, found: Awaited<ReturnType<typeof post>>) => {
    expect(found.status).toBe(status);
    expect(Object.keys(found.json)).toEqual(["error"]);
    expect(Object.keys(found.json.error).sort()).toEqual(["code", "message", "param", "type"]);
    return found.json.error;
  };

  test.each<[string, object, string | null]>([
    ["no prompt", { prompt: undefined }, "prompt"],
    ["an empty list of prompts", { prompt: [] }, "prompt"],
    ["an empty list of tokens", { prompt: [[]] }, "prompt.0"],
    ["a negative token", { prompt: [-1] }, "prompt.0"],
    ["a token that is none", { prompt: [272] }, null],
    ["prompts of two kinds", { prompt: ["a", 1] }, "prompt"],
    ["a negative count", { max_tokens: -1 }, "max_tokens"],
    ["half a count", { max_tokens: 1.5 }, "max_tokens"],
    ["no answers", { n: 0 }, "n"],
    ["too many answers", { n: 129 }, "n"],
    ["too many answers to several prompts", { n: 100, prompt: ["a", "b"] }, "n"],
    ["a temperature below zero", { temperature: -0.1 }, "temperature"],
    ["a top_p of zero", { top_p: 0 }, "top_p"],
    ["too many log probabilities", { logprobs: 21 }, "logprobs"],
    ["too many stops", { stop: new Array(17).fill("x") }, "stop"],
    ["an empty stop", { stop: "" }, "stop"],
    ["a long stop", { stop: "x".repeat(257) }, "stop"],
    ["bias of what is no token", { logit_bias: { foo: 1 } }, "logit_bias"],
    ["bias of an unknown token", { logit_bias: { 272: 1 } }, "logit_bias"],
    ["too strong a bias", { logit_bias: { 1: 101 } }, "logit_bias.1"],
    [
      "too many biases",
      { logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, i) => [i, 1])) },
      "logit_bias",
    ],
    ["a suffix", { suffix: "end" }, "suffix"],
    ["a seed that is no number", { seed: "1" }, "seed"],
    ["a stream that is no truth value", { stream: 1 }, "stream"],
  ])("%s", async (_name, change, param) => {
    expect(error(400, await complete({ ...text, ...change })).param).toBe(param);
  });

  test.each<[string, object, string]>([
    ["no messages", { messages: [] }, "messages"],
    ["a role that is none", { messages: [{ role: "king", content: "x" }] }, "messages.0.role"],
    ["an image", { messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages.0.content"],
    ["tools", { tools: [{}] }, "tools"],
    ["functions", { functions: [{}] }, "functions"],
    ["a schema of the answer", { response_format: { type: "json_object" } }, "response_format"],
    ["audio", { modalities: ["audio"] }, "modalities"],
  ])("%s", async (_name, change, param) => {
    expect(error(400, await chat(change)).param).toBe(param);
  });

  test("a context that is too long, with both numbers", async () => {
    const { code, message } = error(400, await complete({ prompt: "x".repeat(200), max_tokens: 100 }));
    expect(code).toBe("context_length_exceeded");
    expect(message).toContain("256 tokens, but 300 were requested");
  });

  test("an unknown model, path or kind of body", async () => {
    expect(error(404, await complete({ ...text, model: "other" })).code).toBe("model_not_found");
    expect(error(404, await get("/v1/models/other")).code).toBe("model_not_found");
    expect(error(404, await get("/v1/embeddings")).type).toBe("not_found_error");
    expect(error(400, await post(server, "/v1/completions", "{")).message).toContain("not JSON");
    expect(error(400, await post(server, "/v1/completions", "[]")).type).toBe("invalid_request_error");
    const plain = { headers: { "content-type": "text/plain" } };
    expect(error(400, await post(server, "/v1/completions", "{}", plain)).message).toContain("content-type");
    expect(error(413, await post(server, "/tokenize", { prompt: "x".repeat(5 * 2 ** 20) })).message).toContain("bytes");
    expect(error(400, await post(server, "/detokenize", { tokens: [300] })).message).toContain("from 0 to 256");
    expect(error(400, await post(server, "/tokenize", {})).param).toBe("prompt");
  });

  test("a conversation where the model has no template", async () => {
    const base = await startServer({ chatTemplate: undefined as never });
    const { code } = error(400, await post(base, "/v1/chat/completions", { messages: [hello] }));
    expect(code).toBe("no_chat_template");
  });

  test("a conversation that the template refuses", async () => {
    const strict = await startServer({ chatTemplate: "{{ raise_exception('roles must alternate') }}" });
    const { message } = error(400, await post(strict, "/v1/chat/completions", { messages: [hello] }));
    expect(message).toContain("roles must alternate");
  });
});
