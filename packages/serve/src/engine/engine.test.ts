import { type Backend, DeviceError, type DeviceTensor, f32, generate, reference } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { onnxruntime } from "@sisa/onnx";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { asDevice } from "../../test/device.ts";
import { tinyModel } from "../../test/tiny.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { FinishReason, GenerationRequest } from "./request.ts";
import { QueueFullError, ShuttingDownError } from "./request.ts";
import type { TokenScore } from "./scores.ts";

const own = tinyModel();
const { tokenizer } = own;

let backend: Backend;
beforeAll(async () => {
  backend = await onnxruntime();
});
afterAll(() => backend.close());

const open = (options: Partial<EngineOptions> = {}) => Engine.create({ ...own, backend, slots: 3, ...options });

interface Answer {
  readonly text: string;
  readonly tokens: number[];
  readonly scores: TokenScore[];
  readonly finish: FinishReason | undefined;
  readonly cachedTokens: number | undefined;
}

async function answer(engine: Engine, request: GenerationRequest): Promise<Answer> {
  const all = { text: "", tokens: [] as number[], scores: [] as TokenScore[] };
  let finish: FinishReason | undefined;
  let cachedTokens: number | undefined;
  for await (const event of engine.generate(request)) {
    all.text += event.text;
    all.tokens.push(...event.tokens);
    all.scores.push(...event.scores);
    finish ??= event.finish;
    cachedTokens ??= event.prompt?.cachedTokens;
  }
  return { ...all, finish, cachedTokens };
}

const prompt = (text: string) => tokenizer.encode(text);
const long = "The ferry left before the fog had lifted, and some of its lamps were lit. ";

/** Requests that have little in common, and some that share their beginnings. */
const requests: GenerationRequest[] = [
  { tokens: prompt("Once"), maxTokens: 30, seed: 1 },
  { tokens: prompt(long), maxTokens: 40, seed: 2 },
  { tokens: prompt(long), maxTokens: 25, seed: 3, temperature: 0.7 },
  { tokens: prompt(`${long}Nobody`), maxTokens: 17, temperature: 0 },
  { tokens: prompt("x"), maxTokens: 50, seed: 5, topK: 20 },
  { tokens: prompt(`${long.slice(0, 30)}other`), maxTokens: 33, seed: 6, topP: 0.9 },
  { tokens: prompt("One"), maxTokens: 3, seed: 7, frequencyPenalty: 1, presencePenalty: 0.5 },
  { tokens: prompt(long.repeat(2)), maxTokens: 20, seed: 8, ignoreEndOfText: true },
];

describe("the same request gives the same text", () => {
  test("alone, in company, behind a cached beginning, in any order", async () => {
    const alone: Answer[] = [];
    for (const request of requests) {
      await using engine = await open({ slots: 1 });
      alone.push(await answer(engine, request));
    }
    const plain = ({ cachedTokens: _, ...rest }: Answer) => rest;
    await using engine = await open();
    for (let round = 0; round < 3; round++) {
      const order = requests.map((_, index) => (index * 3 + round) % requests.length);
      const answers = await Promise.all(order.map((index) => answer(engine, requests[index] as GenerationRequest)));
      answers.forEach((got, place) => {
        expect(plain(got)).toEqual(plain(alone[order[place] ?? 0] as Answer));
      });
    }
  });

  test("as generate gives", async () => {
    const small = reference();
    await using engine = await Engine.create({ ...own, backend: small, slots: 2 });
    const tokens = prompt("abc");
    const expected: number[] = [];
    for await (const id of generate({ ...own, backend: small, tokens, maxTokens: 8, seed: 9 })) expected.push(id);
    const got = await answer(engine, { tokens, maxTokens: 8, seed: 9, ignoreEndOfText: true });
    expect(got.tokens).toEqual(expected);
    expect(got.finish).toBe("length");
  });
});

describe("beginnings that are shared", () => {
  test("are found at any token, in slots at rest and in slots at work", async () => {
    await using engine = await open({ slots: 10 });
    const first = prompt(long);
    expect((await answer(engine, { tokens: first, maxTokens: 5 })).cachedTokens).toBe(0);
    for (const length of [70, 64, 33, 7, 1]) {
      const tokens = [...first.slice(0, length), ...prompt("!?")];
      expect((await answer(engine, { tokens, maxTokens: 2 })).cachedTokens).toBe(length);
    }
    // The last token of a prompt is always computed, for its logits.
    expect((await answer(engine, { tokens: first, maxTokens: 1 })).cachedTokens).toBe(first.length - 1);

    const unknown = prompt("Quite another text, that nobody has asked before");
    using admission = engine.admit(2);
    const running = admission.submit({ tokens: unknown, maxTokens: 60, ignoreEndOfText: true });
    for await (const event of running) {
      if (event.tokens.length === 0) continue;
      const second = await answer(engine, { tokens: unknown, maxTokens: 1 });
      expect(second.cachedTokens).toBe(unknown.length - 1);
      break;
    }
  });

  test("are computed once for many that come together", async () => {
    let computed = 0;
    const stepDone = ({ promptTokens }: { readonly promptTokens: number }) => {
      computed += promptTokens;
    };
    await using engine = await open({ slots: 4, observer: { stepDone } });
    const tokens = prompt(long.repeat(2));
    const together = [1, 2, 3, 4].map((seed) => answer(engine, { tokens, seed, maxTokens: 5, ignoreEndOfText: true }));
    const answers = await Promise.all(together);
    expect(answers.map(({ cachedTokens }) => cachedTokens)).toEqual(
      [0, 1, 1, 1].map((part) => part * (tokens.length - 1)),
    );
    expect(computed).toBe(tokens.length + 3);
  });

  test("go on from what was generated", async () => {
    await using engine = await open({ slots: 1 });
    const tokens = prompt("Tell");
    const { tokens: generated } = await answer(engine, { tokens, maxTokens: 10, ignoreEndOfText: true });
    const more = [...tokens, ...generated, ...prompt(" and")];
    // The last token that was generated had no need to be computed.
    expect((await answer(engine, { tokens: more, maxTokens: 1 })).cachedTokens).toBe(13);
  });

  test("a prompt that is scored is computed as a whole", async () => {
    await using engine = await open();
    const tokens = prompt(long);
    const scored = async () => {
      using admission = engine.admit();
      let scores: readonly TokenScore[] = [];
      for await (const event of admission.submit({ tokens, maxTokens: 0, promptLogprobs: true, logprobs: 2 })) {
        expect(event.prompt?.cachedTokens).toBe(0);
        scores = event.prompt?.scores ?? [];
      }
      return scores;
    };
    const scores = await scored();
    expect(scores).toHaveLength(tokens.length - 1);
    expect(scores.map(({ token }) => token)).toEqual(tokens.slice(1));
    expect(await scored()).toEqual(scores);
  });
});

describe("text", () => {
  const emoji = Array.from(new TextEncoder().encode("a😀é"));

  test("never shows half a character, also where a prompt ends in one", async () => {
    await using engine = await open();
    // Bias so strong that nothing else can come.
    const forced = async (tokens: number[], bytes: number[], stop: string[] = []) => {
      let text = "";
      using admission = engine.admit();
      const bias = new Map([[bytes[0] ?? 0, 1000]]);
      const pieces: string[] = [];
      const request = { tokens, maxTokens: bytes.length, temperature: 0, stop, logitBias: bias };
      const generation = admission.submit(request);
      let given = 0;
      for await (const event of generation) {
        given += event.tokens.length;
        pieces.push(event.text);
        text += event.text;
        bias.clear();
        bias.set(bytes[given] ?? 0, 1000);
      }
      return { text, pieces, finish: generation.finish };
    };
    expect((await forced(prompt("x"), emoji)).text).toBe("a😀é");
    for (const piece of (await forced(prompt("x"), emoji)).pieces) expect(piece).not.toMatch(/\p{Surrogate}/u);
    // The prompt ends within the emoji: its rest completes it, and the prompt is not said again.
    expect((await forced([120, ...emoji.slice(0, 3)], emoji.slice(3))).text).toBe("😀é");
    // Where it does not, it is no part of the answer.
    expect((await forced([120, ...emoji.slice(0, 3)], prompt("y"))).text).toBe("y");
    expect(await forced(prompt("x"), emoji, ["😀"])).toMatchObject({ text: "a", finish: "stop" });
    expect(await forced(prompt("x"), emoji, ["a😀x", "é"])).toMatchObject({ text: "a😀", finish: "stop" });
    // Bytes that never become a character.
    expect((await forced(prompt("x"), [0xf0, 0x9f])).text).toBe("\ufffd");
  });

  test("ends before end-of-text, which counts as a token", async () => {
    await using engine = await open();
    const end = byteTokenizer().endOfText ?? 0;
    const request = { tokens: prompt("x"), maxTokens: 9, logitBias: new Map([[end, 1000]]), logprobs: 1 };
    expect(await answer(engine, request)).toMatchObject({ text: "", tokens: [end], finish: "stop" });
    const going = await answer(engine, { ...request, ignoreEndOfText: true });
    expect(going).toMatchObject({ tokens: new Array(9).fill(end), finish: "length" });
  });

  test("ends before a stop however it is cut into tokens", async () => {
    await using engine = await open();
    const request = { tokens: prompt("Once"), maxTokens: 60, seed: 11 };
    const { text } = await answer(engine, request);
    const characters = [...text];
    for (let at = 5; at < 30; at += 3) {
      const stop = characters.slice(at, at + 3).join("");
      const stopped = await answer(engine, { ...request, stop: ["never", stop] });
      expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
      expect(stopped.finish).toBe("stop");
    }
  });
});

test("scores are the model's, of a token among its likeliest", async () => {
  await using engine = await open();
  const { tokens, scores } = await answer(engine, { tokens: prompt("x"), maxTokens: 5, temperature: 0, logprobs: 4 });
  expect(scores.map(({ token }) => token)).toEqual(tokens);
  for (const { logprob, top } of scores) {
    expect(top).toHaveLength(4);
    expect(top[0]?.logprob).toBe(logprob);
    expect(top.map((entry) => entry.logprob)).toEqual(top.map((entry) => entry.logprob).toSorted((a, b) => b - a));
  }
  const every = await answer(engine, { tokens: prompt("x"), maxTokens: 1, temperature: 0, logprobs: 272 });
  const sum = every.scores[0]?.top.reduce((total, { logprob }) => total + Math.exp(logprob), 0);
  expect(sum).toBeCloseTo(1, 12);
});

test.each([
  ["in pages", true],
  ["of each slot", false],
])(
  "of a prompt on a device, with caches %s, nothing is read but the last token, and every fourth chunk waits",
  async (_where, pagedCaches) => {
    const large = tinyModel({ maximumLength: 512 });
    const tokens = large.tokenizer.encode(long.repeat(7).slice(0, 7 * 64 - 5));
    const request = { tokens, maxTokens: 2, temperature: 0, ignoreEndOfText: true };
    await using host = await Engine.create({ ...large, backend: reference(), slots: 1 });
    const expected = await answer(host, request);

    const device = asDevice({ pagedCaches });
    const reads = vi.spyOn(Object.getPrototypeOf(device.tensor(f32(1))) as DeviceTensor, "read");
    /** How many reads there were at the end of each run. */
    const seen: number[] = [];
    const stepDone = () => {
      seen.push(reads.mock.calls.length);
    };
    await using engine = await Engine.create({ ...large, backend: device, slots: 1, observer: { stepDone } });
    expect((await answer(engine, request)).tokens).toEqual(expected.tokens);
    // Seven chunks, and the second token.
    expect(seen).toEqual([0, 0, 0, 1, 1, 1, 2, 3]);
    // Half of what another has asked is there: its chunks are counted anew.
    seen.length = 0;
    reads.mockClear();
    const other = [...tokens.slice(0, 192), ...tokens.slice(0, 200)];
    expect((await answer(engine, { ...request, tokens: other })).tokens).toHaveLength(2);
    expect(seen).toEqual([0, 0, 0, 1, 2]);
    reads.mockRestore();
  },
);

describe("slots and queue", () => {
  test("an answer that nobody wants frees its slot within a step, running or waiting", async () => {
    let steps = 0;
    const stepDone = () => {
      steps += 1;
    };
    await using engine = await open({ slots: 1, observer: { stepDone } });
    const controllers = [new AbortController(), new AbortController()];
    const endless = { tokens: prompt("x"), ignoreEndOfText: true };
    using admission = engine.admit(3);
    const [first, second] = controllers.map(({ signal }) => admission.submit({ ...endless, signal }));
    const third = admission.submit({ ...endless, maxTokens: 2 });
    for await (const event of first ?? []) if (event.tokens.length > 0) break;
    controllers[1]?.abort();
    const at = steps;
    let tokens = 0;
    for await (const event of third) tokens += event.tokens.length;
    expect(tokens).toBe(2);
    // The step that was running, then the prompt and one token of the third.
    expect(steps - at).toBeLessThanOrEqual(3);
    await expect(second?.[Symbol.asyncIterator]().next()).rejects.toThrow("aborted");
    await expect.poll(() => engine.counts).toMatchObject({ running: 0, waiting: 0 });
  });

  test("more than fit are refused at once, and room comes back", async () => {
    await using engine = await open({ slots: 2, queueLength: 1 });
    expect(engine.mostAdmitted).toBe(3);
    const all = engine.admit(3);
    expect(() => engine.admit()).toThrow(QueueFullError);
    all.release();
    all.release();
    expect(() => engine.admit(4)).toThrow("0 of 3 places are taken, 4 were asked for");
    using again = engine.admit(3);
    expect(engine.counts.admitted).toBe(3);
    expect(again).toBeDefined();
  });

  test("events that nobody takes are put together", async () => {
    await using engine = await open();
    using admission = engine.admit();
    const generation = admission.submit({ tokens: prompt("x"), maxTokens: 20, ignoreEndOfText: true });
    await expect.poll(() => generation.finish).toBe("length");
    const events = [];
    for await (const event of generation) events.push(event);
    expect(events).toHaveLength(1);
    expect(events[0]?.tokens).toHaveLength(20);
  });

  test("drain lets everything end and takes nothing new", async () => {
    await using engine = await open({ slots: 1 });
    const running = [20, 10, 5].map((maxTokens) =>
      answer(engine, { tokens: prompt("x"), maxTokens, ignoreEndOfText: true }),
    );
    await Promise.resolve();
    const drained = engine.drain();
    expect(engine.ready).toBe(false);
    expect(() => engine.admit()).toThrow(ShuttingDownError);
    await drained;
    expect((await Promise.all(running)).map(({ tokens }) => tokens.length)).toEqual([20, 10, 5]);
  });

  test("close ends what is running with an error", async () => {
    const engine = await open({ slots: 1 });
    const running = answer(engine, { tokens: prompt("x"), ignoreEndOfText: true });
    const waiting = answer(engine, { tokens: prompt("y"), ignoreEndOfText: true });
    const failures = Promise.allSettled([running, waiting]);
    await engine.close();
    for (const result of await failures) expect(result).toMatchObject({ reason: expect.any(ShuttingDownError) });
  });

  test("a run that fails ends the answers in it, and no others", async () => {
    const flaky = reference();
    let failing = false;
    const broken = new Proxy(flaky, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (name !== "tensor") return typeof value === "function" ? value.bind(target) : value;
        return (...args: Parameters<Backend["tensor"]>) => {
          if (failing) throw new DeviceError("the device is gone");
          return target.tensor(...args);
        };
      },
    });
    await using engine = await Engine.create({ ...own, backend: broken, slots: 2 });
    // The first fails in its own run, the second where a beginning is copied for it.
    for (const text of ["xyz", "xy!"]) {
      failing = true;
      await expect(answer(engine, { tokens: prompt(text), maxTokens: 1 })).rejects.toThrow("the device is gone");
      expect([engine.ready, engine.healthy]).toEqual([false, false]);
      failing = false;
      expect((await answer(engine, { tokens: prompt("xyz"), maxTokens: 1 })).tokens).toHaveLength(1);
      expect([engine.ready, engine.healthy]).toEqual([true, true]);
    }
  });

  test.each([
    ["on the host", reference],
    ["on a device", asDevice],
    ["in pages", () => asDevice({ pagedCaches: true })],
  ])("an answer whose logits allow no choice ends alone, %s", async (_where, openBackend) => {
    // Only whoever reads this token gets NaN.
    const bad = 200;
    const model = tinyModel({ tiedHead: false });
    model.parameters["embed.weight"]?.fill(Number.NaN, bad * 16, (bad + 1) * 16);
    await using engine = await Engine.create({ ...model, backend: openBackend(), slots: 2 });
    const request = { tokens: prompt("Once"), maxTokens: 12, seed: 1, logitBias: new Map([[bad, -100]]) };
    const alone = await answer(engine, request);
    for (const choice of [{ logitBias: new Map([[bad, 1000]]), temperature: 0 }, {}]) {
      // Without a bias, the device chooses the tokens.
      const tokens = "logitBias" in choice ? prompt("x") : [120, bad];
      const both = [answer(engine, request), answer(engine, { tokens, ...choice, maxTokens: 5 })];
      const [good, failed] = await Promise.allSettled(both);
      expect(failed).toMatchObject({ reason: expect.objectContaining({ code: "DATA" }) });
      expect(good).toMatchObject({ value: { tokens: alone.tokens, finish: alone.finish } });
      expect(engine.healthy).toBe(true);
    }
    // What it left in its slot disturbs nobody.
    for (const seed of [3, 4]) {
      const next = { tokens: prompt("xy"), maxTokens: 3, seed, logitBias: request.logitBias };
      expect((await answer(engine, next)).tokens.length).toBeGreaterThan(0);
    }
  });

  test("holds the same memory however many come and go, and none when closed", async () => {
    await using other = await onnxruntime();
    const engine = await Engine.create({ ...own, backend: other, slots: 2 });
    const some = () => Promise.all(requests.slice(0, 5).map((request) => answer(engine, { ...request, maxTokens: 3 })));
    await some();
    const { deviceBytes } = other.memory();
    for (let round = 0; round < 5; round++) await some();
    expect(other.memory().deviceBytes).toBe(deviceBytes);
    await engine.close();
    await expect.poll(() => other.memory().deviceBytes).toBe(0);
  });
});

test("form sdpa ends with an error where it would clamp", async () => {
  const clamped = tinyModel({ mixers: ["sisa"], form: "sdpa" });
  clamped.parameters["layers.0.alpha_proj.bias"]?.fill(1);
  await using engine = await Engine.create({ ...clamped, backend, slots: 2 });
  await expect(answer(engine, { tokens: prompt("x"), ignoreEndOfText: true })).rejects.toThrow('form "sdpa" clamps');
});

test("an answer that failed counts as failed, also where its reader gives up what it asked for", async () => {
  const outcomes: string[] = [];
  const ended = (_: unknown, outcome: string) => {
    outcomes.push(outcome);
  };
  const clamped = tinyModel({ mixers: ["sisa"], form: "sdpa" });
  clamped.parameters["layers.0.alpha_proj.bias"]?.fill(1);
  await using engine = await Engine.create({ ...clamped, backend, slots: 2, observer: { ended } });
  const reader = new AbortController();
  const request = { tokens: prompt("x"), ignoreEndOfText: true, signal: reader.signal };
  await answer(engine, request).catch(() => reader.abort());
  await expect.poll(() => outcomes).toEqual(["error"]);
  // One that is given up while it runs has not failed.
  await expect(answer(engine, request)).rejects.toThrow("aborted");
  await expect.poll(() => outcomes).toEqual(["error", "cancelled"]);
});

test.each<[string, Partial<GenerationRequest>, string]>([
  ["no prompt", { tokens: [] }, "the prompt is empty"],
  ["an id that is none", { tokens: [1, 272] }, "expected token ids from 0 to 271, got 272"],
  ["a negative id", { tokens: [-1] }, "got -1"],
  ["half a token", { maxTokens: 1.5 }, "maxTokens must be a whole number >= 0, got 1.5"],
  ["more than fits", { maxTokens: 256 }, "the context length is 256 tokens, but 257 were requested: 1 in the prompt"],
  ["a prompt that fills the context", { tokens: new Array(256).fill(1) }, "257 were requested: 256 in the prompt"],
  ["bias of no token", { logitBias: new Map([[999, 1]]) }, "logitBias"],
  ["a temperature that is none", { temperature: Number.NaN }, "temperature"],
  ["a penalty that is none", { presencePenalty: Number.POSITIVE_INFINITY }, "penalties"],
])("refuses %s", async (_name, change, message) => {
  await using engine = await open({ slots: 1 });
  await expect(answer(engine, { tokens: [1], ...change })).rejects.toThrow(message);
  expect(engine.counts).toMatchObject({ admitted: 0, running: 0, waiting: 0 });
});
