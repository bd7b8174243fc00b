// The server with the clients that people have: OpenAI's own, and that of the AI SDK.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import OpenAI, { APIError } from "openai";
import { describe, expect, test } from "vitest";
import { startServer } from "../../test/server.ts";

const server = await startServer({ apiKey: "sk-test" });
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-test", maxRetries: 0 });
const messages = [{ role: "user" as const, content: "Hello" }];

describe("openai", () => {
  test("completions, whole and streamed", async () => {
    const request = { model: "tiny", prompt: "Once", max_tokens: 12, seed: 2 };
    const whole = await client.completions.create(request);
    expect(whole.usage?.completion_tokens).toBeLessThanOrEqual(12);
    let text = "";
    for await (const chunk of await client.completions.create({ ...request, stream: true })) {
      text += chunk.choices[0]?.text ?? "";
    }
    expect(text).toBe(whole.choices[0]?.text);
  });

  test("chat, whole, streamed, and by the client's helper", async () => {
    const request = { model: "tiny", messages, max_tokens: 12, seed: 2 };
    const whole = await client.chat.completions.create(request);
    const content = whole.choices[0]?.message.content;
    let text = "";
    let usage = 0;
    const stream = await client.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage?.completion_tokens ?? usage;
    }
    expect(text).toBe(content);
    expect(usage).toBe(whole.usage?.completion_tokens);
    expect(await client.chat.completions.stream(request).finalContent()).toBe(content);
  });

  test("models", async () => {
    const found = [];
    for await (const model of client.models.list()) found.push(model.id);
    expect(found).toEqual(["tiny"]);
    expect((await client.models.retrieve("tiny")).object).toBe("model");
  });

  test("an aborted stream", async () => {
    const request = { model: "tiny", prompt: "x", max_tokens: 250, stream: true as const };
    const stream = await client.completions.create(request);
    for await (const _ of stream) break;
    await expect.poll(() => server.engine.counts.admitted).toBe(0);
  });

  test("errors come as the client's own", async () => {
    const failure = async (action: Promise<unknown>) => {
      const error = await action.catch((caught: unknown) => caught);
      if (!(error instanceof APIError)) throw new Error(`expected an APIError, got ${error}`);
      return error;
    };
    const request = { model: "tiny", prompt: "x" };
    expect(await failure(client.completions.create({ ...request, max_tokens: -1 }))).toMatchObject({
      status: 400,
      param: "max_tokens",
      type: "invalid_request_error",
    });
    expect(await failure(client.completions.create({ ...request, model: "gpt" }))).toMatchObject({
      status: 404,
      code: "model_not_found",
    });
    const stranger = client.withOptions({ apiKey: "sk-other" });
    expect(await failure(stranger.completions.create(request))).toMatchObject({ status: 401, code: "invalid_api_key" });
    const long = "x".repeat(5 * 2 ** 20);
    expect(await failure(client.completions.create({ ...request, prompt: long }))).toMatchObject({ status: 413 });
    const overlong = await failure(client.completions.create({ ...request, prompt: "x".repeat(300) }));
    expect(overlong).toMatchObject({ status: 400, code: "context_length_exceeded" });
    expect(overlong.requestID).toMatch(/./);
  });
});

describe("bodies of the client's generated tests", () => {
  const completion = {
    best_of: 0,
    echo: true,
    frequency_penalty: -2,
    logit_bias: { foo: 0 },
    logprobs: 0,
    max_tokens: 16,
    n: 1,
    presence_penalty: -2,
    seed: -9007199254740991,
    stop: "\n",
    stream: false as const,
    stream_options: { include_obfuscation: true, include_usage: true },
    temperature: 1,
    top_p: 1,
    user: "user-1234",
  };
  const required = { model: "tiny", prompt: "This is a test." };

  test("completions: what is required, and all there is", async () => {
    expect((await client.completions.create(required)).object).toBe("text_completion");
    expect((await client.completions.create({ ...required, ...completion })).object).toBe("text_completion");
    // The one field of them that asks for what this server cannot do.
    await expect(client.completions.create({ ...required, ...completion, suffix: "test." })).rejects.toMatchObject({
      status: 400,
      param: "suffix",
    });
  });

  test("chat: what is required, and all there is", async () => {
    const conversation = [{ content: "string", role: "developer" as const, name: "name" }];
    const minimal = { model: "tiny", messages: conversation };
    expect((await client.chat.completions.create(minimal)).object).toBe("chat.completion");
    const everything = {
      ...minimal,
      audio: { format: "wav", voice: "string" },
      frequency_penalty: -2,
      function_call: "none",
      functions: [{ name: "name", description: "description", parameters: { foo: "bar" } }],
      logit_bias: { foo: 0 },
      logprobs: true,
      max_completion_tokens: 0,
      max_tokens: 0,
      metadata: { foo: "string" },
      modalities: ["text"],
      n: 1,
      parallel_tool_calls: true,
      prediction: { content: "string", type: "content" },
      presence_penalty: -2,
      prompt_cache_key: "prompt-cache-key-1234",
      reasoning_effort: "none",
      response_format: { type: "text" },
      safety_identifier: "safety-identifier-1234",
      seed: -9007199254740991,
      service_tier: "auto",
      stop: "\n",
      store: true,
      stream: false,
      stream_options: { include_obfuscation: true, include_usage: true },
      temperature: 1,
      tool_choice: "none",
      tools: [{ function: { name: "name", description: "description" }, type: "function" }],
      top_logprobs: 0,
      top_p: 1,
      user: "user-1234",
      verbosity: "low",
      web_search_options: { search_context_size: "low" },
    };
    const answer = await client.post<{ object: string }>("/chat/completions", { body: everything });
    expect(answer.object).toBe("chat.completion");
  });
});

describe("@ai-sdk/openai-compatible", () => {
  const provider = createOpenAICompatible({ name: "sisa", baseURL: `${server.url}/v1`, apiKey: "sk-test" });
  const prompt = [{ role: "user" as const, content: [{ type: "text" as const, text: "Hello" }] }];
  const options = { prompt, maxOutputTokens: 12, seed: 2 };

  test("chat, whole and streamed", async () => {
    const model = provider.chatModel("tiny");
    const whole = await model.doGenerate(options);
    const [content] = whole.content;
    expect(content).toMatchObject({ type: "text", text: expect.any(String) });
    const { stream } = await model.doStream(options);
    let text = "";
    let finish: unknown;
    for await (const part of stream) {
      if (part.type === "text-delta") text += part.delta;
      if (part.type === "finish") finish = part.finishReason;
      if (part.type === "error") throw part.error;
    }
    expect(text).toBe(content?.type === "text" ? content.text : undefined);
    expect(finish).toEqual(whole.finishReason);
  });

  test("completions", async () => {
    const { content } = await provider.completionModel("tiny").doGenerate(options);
    expect(content[0]).toMatchObject({ type: "text" });
  });

  test("errors", async () => {
    await expect(provider.chatModel("other").doGenerate(options)).rejects.toMatchObject({
      statusCode: 404,
      isRetryable: false,
    });
  });
});
