// What the server promises, each seen from outside.
import { request as httpRequest } from "node:http";
import { describe, expect, test, vi } from "vitest";
import { frames, post, startServer } from "../../test/server.ts";

const server = await startServer();
const texts = ["Once", "The ferry left before the fog had", "The ferry left", "x", "Lamps were lit.  ".repeat(6)];
const body = (prompt: string | string[], seed = 7) => ({ prompt, seed, max_tokens: 20, temperature: 1 });
const textsOf = (json: { choices: { text: string }[] }) => json.choices.map(({ text }) => text);

/** What a stream says of each choice, put together. */
function streamed(all: Awaited<ReturnType<typeof frames>>) {
  const choices: { text: string; finish: string | null; tokens: string[] }[] = [];
  for (const { choices: some } of all) {
    for (const { index, text, delta, finish_reason: finish, logprobs } of some) {
      choices[index] ??= { text: "", finish: null, tokens: [] };
      const choice = choices[index];
      choice.text += text ?? delta.content ?? "";
      choice.finish ??= finish;
      choice.tokens.push(...(logprobs?.tokens ?? []));
    }
  }
  return choices;
}

test("a stream says what one answer says", async () => {
  const request = { ...body(texts), n: 2, logprobs: 1, stop: ["e", "\n"], temperature: 0.9 };
  const whole = (await post(server, "/v1/completions", request)).json.choices.map(
    ({
      text,
      finish_reason: finish,
      logprobs,
    }: {
      text: string;
      finish_reason: string;
      logprobs: { tokens: string[] };
    }) => ({
      text,
      finish,
      tokens: logprobs.tokens,
    }),
  );
  expect(streamed(await frames(server, "/v1/completions", request))).toEqual(whole);
  const chat = { messages: [{ role: "user", content: "Hello" }], max_tokens: 30, seed: 4 };
  const [answer] = (await post(server, "/v1/chat/completions", chat)).json.choices;
  const [said] = streamed(await frames(server, "/v1/chat/completions", chat));
  expect(said).toMatchObject({ text: answer.message.content, finish: answer.finish_reason });
});

test("n prompts, and n answers, are what single requests give", async () => {
  const batch = textsOf((await post(server, "/v1/completions", { ...body(texts), n: 2 })).json);
  const singles: string[] = [];
  for (const text of texts) {
    for (const seed of [7, 8]) singles.push(...textsOf((await post(server, "/v1/completions", body(text, seed))).json));
  }
  expect(batch).toEqual(singles);
});

test("answers differ by their seeds, also of the largest", async () => {
  const largest = body("Once", Number.MAX_SAFE_INTEGER);
  const answers = textsOf((await post(server, "/v1/completions", { ...largest, n: 4 })).json);
  expect(new Set(answers).size).toBe(4);
});

test("a cached beginning changes no text", async () => {
  const fresh = await startServer();
  const prompt = texts[4] ?? "";
  const first = (await post(fresh, "/v1/completions", body(prompt))).json;
  const second = (await post(fresh, "/v1/completions", body(prompt))).json;
  expect(first.usage.prompt_tokens_details.cached_tokens).toBe(0);
  expect(second.usage.prompt_tokens_details.cached_tokens).toBe(prompt.length - 1);
  expect(second.choices).toEqual(first.choices);
  // Answers to one prompt share it; what the first of them found counts.
  const several = (await post(fresh, "/v1/completions", { ...body("Stately, plump"), n: 3 })).json;
  expect(several.usage.prompt_tokens_details.cached_tokens).toBe(0);
});

test("the same seed gives the same text under any load", async () => {
  const alone = textsOf((await post(server, "/v1/completions", body("Once upon a", 99))).json);
  const noise = Array.from({ length: 24 }, (_, index) =>
    post(server, "/v1/completions", { ...body(texts[index % 5] ?? "", index), max_tokens: 3 + index }),
  );
  const loaded = await Promise.all(
    Array.from({ length: 6 }, () => post(server, "/v1/completions", body("Once upon a", 99))),
  );
  await Promise.all(noise);
  for (const { json } of loaded) expect(textsOf(json)).toEqual(alone);
  expect(textsOf((await post(server, "/v1/completions", body("Once upon a", 98))).json)).not.toEqual(alone);
});

describe("clients that go away", () => {
  const idle = { running: 0, waiting: 0, admitted: 0 };

  test.each([true, false])("free their slots, stream: %s", async (stream) => {
    const gone = await startServer({ slots: 2, contextLength: 256 });
    const requests = Array.from({ length: 12 }, async (_, index) => {
      const controller = new AbortController();
      const response = fetch(`${gone.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "x", ignore_eos: true, max_tokens: 200, stream }),
        signal: controller.signal,
      });
      setTimeout(() => controller.abort(), 10 + 5 * index);
      await response.then((answer) => answer.text());
    });
    const results = await Promise.allSettled(requests);
    expect(results.filter(({ status }) => status === "rejected").length).toBeGreaterThan(6);
    await expect.poll(() => gone.engine.counts, { timeout: 1000, interval: 10 }).toMatchObject(idle);
    expect((await post(gone, "/v1/completions", { prompt: "x", max_tokens: 2 })).status).toBe(200);
  });
});

test("a full queue answers 503 at once, and says when to come back", async () => {
  const full = await startServer({ slots: 1, queueLength: 2 });
  const long = () => post(full, "/v1/completions", { prompt: "x", ignore_eos: true, max_tokens: 200 });
  const taken = [long(), long(), long()];
  await expect.poll(() => full.engine.counts.admitted).toBe(3);
  const encode = vi.spyOn(full.engine.tokenizer, "encode");
  const refused = await Promise.all(Array.from({ length: 20 }, long));
  for (const { status, headers, json } of refused) {
    expect(status).toBe(503);
    expect(headers.get("retry-after")).toBe("1");
    expect(json.error).toMatchObject({ code: "queue_full", param: null, type: "service_unavailable_error" });
  }
  // No work was done for any of them.
  expect(encode).not.toHaveBeenCalled();
  const tooMany = await post(full, "/v1/completions", { prompt: "x", n: 4 });
  expect(tooMany).toMatchObject({ status: 400, json: { error: { param: "n" } } });
  for (const answer of taken) expect((await answer).status).toBe(200);
  expect((await long()).status).toBe(200);
});

test("closing finishes what was begun, refuses what comes, and ends", async () => {
  const closing = await startServer({ slots: 1 });
  const body = { prompt: "x", ignore_eos: true, max_tokens: 150 };
  const begun = [post(closing, "/v1/completions", body), frames(closing, "/v1/completions", body)] as const;
  await expect.poll(() => closing.engine.counts.admitted).toBe(2);
  const closed = closing.close();
  const refused = await post(closing, "/v1/completions", body);
  expect(refused).toMatchObject({ status: 503, json: { error: { code: "shutting_down" } } });
  expect((await fetch(`${closing.url}/ready`)).status).toBe(503);
  expect((await fetch(`${closing.url}/health`)).status).toBe(200);
  expect((await begun[0]).json.usage.completion_tokens).toBe(150);
  expect(streamed(await begun[1])[0]?.finish).toBe("length");
  await closed;
  await expect(fetch(`${closing.url}/health`)).rejects.toThrow();
});

test("what does not finish in time ends with an error frame", async () => {
  const hurried = await startServer();
  const running = frames(hurried, "/v1/completions", { prompt: "x", ignore_eos: true, max_tokens: 255 });
  await expect.poll(() => hurried.engine.counts.running).toBe(1);
  await hurried.close(0);
  expect((await running).at(-1).error).toMatchObject({ code: "shutting_down", type: "service_unavailable_error" });
});

describe("an API key", () => {
  const key = "sk-correct";
  const paths = [
    "/v1/models",
    "/v1/models/tiny",
    "/tokenizer_info",
    "/metrics",
    "/version",
    "/openapi.json",
    "/",
    "/x",
  ];

  test("protects everything but health, and is never logged", async () => {
    const entries: unknown[] = [];
    const locked = await startServer({ apiKey: key, log: (entry) => void entries.push(entry) });
    const status = async (path: string, authorization?: string, method = "GET") => {
      const headers = { ...(authorization ? { authorization } : {}), "content-type": "application/json" };
      const init = method === "POST" ? { method, headers, body: "{}" } : { headers };
      return (await fetch(locked.url + path, init)).status;
    };
    for (const path of paths) {
      for (const wrong of [undefined, "Bearer sk-wrong", `bearer ${key}x`, key, "Basic eDp5", "Bearer "]) {
        expect(await status(path, wrong)).toBe(401);
      }
      expect(await status(path, `Bearer ${key}`)).toBe(path === "/x" ? 404 : 200);
      expect(await status(path, `Basic ${btoa(`anyone:${key}`)}`)).toBe(path === "/x" ? 404 : 200);
    }
    for (const path of ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"]) {
      expect(await status(path, undefined, "POST")).toBe(401);
      expect(await status(path, `Bearer ${key}`, "POST")).toBe(400);
    }
    for (const path of ["/health", "/ready"]) expect(await status(path)).toBe(200);
    expect(entries.length).toBeGreaterThan(50);
    expect(JSON.stringify(entries)).not.toContain(key);
  });
});

test("silence in a stream is broken by comments", async () => {
  const quiet = await startServer({ slots: 1, pingMs: 20 });
  const first = post(quiet, "/v1/completions", { prompt: "x", ignore_eos: true, max_tokens: 250 });
  await expect.poll(() => quiet.engine.counts.running).toBe(1);
  const text = await new Promise<string>((resolve, reject) => {
    const payload = JSON.stringify({ prompt: "y", max_tokens: 1, stream: true });
    const sent = httpRequest(
      `${quiet.url}/v1/completions`,
      { method: "POST", headers: { "content-type": "application/json" } },
      (response) => {
        let received = "";
        response.setEncoding("utf8");
        response.on("data", (part: string) => {
          received += part;
        });
        response.on("end", () => resolve(received));
      },
    );
    sent.on("error", reject);
    sent.end(payload);
  });
  expect(text).toContain(": ping\n\n");
  expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  await first;
});
