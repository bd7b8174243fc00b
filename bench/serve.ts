// Load on the HTTP server: closed loop (a number of clients, each with one request at a time), open loop (requests come
// at random moments, whether or not earlier ones are answered), and prompts that share a beginning.
// npm run bench -- serve [--clients 1,8,32] [--rate 1.5] [--seconds 25] [--size 50m] [--family sisa] [--slots 8] [--shared 100]

import { parseArgs } from "node:util";
import { type Family, initialize, languageModel, type PresetSize, preset, RandomStream } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { onnxruntime } from "@sisa/onnx";
import { serve } from "@sisa/serve/node";
import { load, rounded, table } from "./support/statistics.ts";

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "1,8,32" },
    rate: { type: "string", default: "1.5" },
    seconds: { type: "string", default: "25" },
    size: { type: "string", default: "50m" },
    family: { type: "string", default: "sisa" },
    slots: { type: "string", default: "8" },
    shared: { type: "string", default: "100" },
  },
});
const seconds = Number(values.seconds);
const promptTokens = 64;
const answerTokens = 32;
/** No multiple of any block. */
const sharedTokens = 500;

interface Timing {
  readonly firstMs: number;
  readonly betweenMs: readonly number[];
  readonly cachedTokens: number;
}

const config = preset(values.family as Family, values.size as PresetSize);
const parameters = initialize(languageModel(config), 1);
/** Every token is a word of its own, so that a client sees each of them come. Prompts are ids. */
const word = (id: number) => ` ${id.toString(36)}`;
const textOf = (ids: ArrayLike<number>) => Array.from(ids, word).join("");
const tokenizer: Tokenizer = {
  size: config.vocabularySize,
  endOfText: undefined,
  encode: () => [],
  decode: textOf,
  byteLength: (ids) => textOf(ids).length,
  tokenBytes: (id) => new TextEncoder().encode(word(id)),
  streamDecoder: () => ({ push: word, flush: () => "" }),
};
const backend = await onnxruntime();
const server = await serve(
  { model: languageModel(config), parameters, tokenizer, generationConfig: {}, assets: {} },
  { backend, port: 0, slots: Number(values.slots) },
);

const random = new RandomStream(1, "prompts");
let drawn = 0;
const tokens = (count: number) => Array.from({ length: count }, () => random.below(config.vocabularySize, drawn++));

/** One streamed request, timed where a client sees its parts. */
async function ask(prompt: readonly number[], count = answerTokens): Promise<Timing> {
  const startMs = performance.now();
  const body = { prompt, max_tokens: count, temperature: 0, ignore_eos: true, stream: true };
  const response = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream_options: { include_usage: true } }),
  });
  if (!response.ok || !response.body) throw new Error(`${response.status}: ${await response.text()}`);
  const arrivals: number[] = [];
  let held = "";
  let cachedTokens = 0;
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    held += part;
    const frames = held.split("\n\n");
    held = frames.pop() ?? "";
    for (const frame of frames) {
      if (!frame.startsWith("data: {")) continue;
      const { choices, usage } = JSON.parse(frame.slice(6));
      if (usage) cachedTokens = usage.prompt_tokens_details.cached_tokens;
      // Tokens that come together come in one frame.
      const words = (choices[0]?.text ?? "").split(" ").length - 1;
      for (let index = 0; index < words; index++) arrivals.push(performance.now());
    }
  }
  if (arrivals.length !== count) throw new Error(`expected ${count} tokens, got ${arrivals.length}`);
  const betweenMs = arrivals.slice(1).map((at, index) => at - (arrivals[index] ?? at));
  return { firstMs: (arrivals[0] ?? startMs) - startMs, betweenMs, cachedTokens };
}

function percentile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN;
}

interface Row {
  readonly name: string;
  readonly requests: number;
  readonly tokensPerSecond: number;
  readonly firstMs: readonly [p50: number, p99: number];
  readonly betweenMs: readonly [p50: number, p99: number];
}

function summary(name: string, timings: readonly Timing[], elapsedMs: number): Row {
  const first = timings.map(({ firstMs }) => firstMs);
  const between = timings.flatMap(({ betweenMs }) => betweenMs);
  const both = (numbers: readonly number[]) =>
    [rounded(percentile(numbers, 0.5)), rounded(percentile(numbers, 0.99))] as const;
  const tokensPerSecond = rounded((timings.length * answerTokens * 1000) / elapsedMs);
  return { name, requests: timings.length, tokensPerSecond, firstMs: both(first), betweenMs: both(between) };
}

/** Every client asks anew when it has its answer. */
async function closedLoop(clients: number): Promise<Row> {
  const timings: Timing[] = [];
  const startMs = performance.now();
  const client = async () => {
    while (performance.now() - startMs < seconds * 1000) timings.push(await ask(tokens(promptTokens)));
  };
  await Promise.all(Array.from({ length: clients }, client));
  return summary(`${clients} clients`, timings, performance.now() - startMs);
}

/** Requests come as in a Poisson process. */
async function openLoop(rate: number): Promise<Row> {
  const arrivals = new RandomStream(2, "arrivals");
  const pending: Promise<Timing>[] = [];
  const startMs = performance.now();
  for (let dueMs = 0, index = 0; dueMs < seconds * 1000; index++) {
    const waitMs = dueMs - (performance.now() - startMs);
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    pending.push(ask(tokens(promptTokens)));
    dueMs += (-Math.log(1 - arrivals.uniform(index)) / rate) * 1000;
  }
  const timings = await Promise.all(pending);
  return summary(`${rate} requests/s`, timings, performance.now() - startMs);
}

/** One after another: `count` prompts with a beginning in common, and some with none. */
async function sharedBeginnings(count: number) {
  const beginning = tokens(sharedTokens);
  const shared: Timing[] = [];
  const own: Timing[] = [];
  for (let index = 0; index < count; index++) shared.push(await ask([...beginning, ...tokens(10)], 2));
  for (let index = 0; index < 10; index++) own.push(await ask(tokens(sharedTokens + 10), 2));
  const hits = shared.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0);
  return {
    requests: count,
    hitRate: rounded(hits / (count * (sharedTokens + 10))),
    firstMs: rounded(
      percentile(
        shared.slice(1).map(({ firstMs }) => firstMs),
        0.5,
      ),
    ),
    firstMsWithout: rounded(
      percentile(
        own.map(({ firstMs }) => firstMs),
        0.5,
      ),
    ),
  };
}

const before = load();
// The first runs of a program take longer.
await Promise.all(Array.from({ length: 8 }, () => ask(tokens(promptTokens), 4)));
const rows: Row[] = [];
for (const clients of values.clients.split(",").map(Number)) rows.push(await closedLoop(clients));
if (Number(values.rate) > 0) rows.push(await openLoop(Number(values.rate)));
const prefix = Number(values.shared) > 0 ? await sharedBeginnings(Number(values.shared)) : undefined;
await server.close();
await backend.close();

const header = ["", "requests", "tokens/s", "first token p50 / p99 ms", "between tokens p50 / p99 ms"];
const cells = rows.map(({ name, requests, tokensPerSecond, firstMs, betweenMs }) => [
  name,
  String(requests),
  String(tokensPerSecond),
  firstMs.join(" / "),
  betweenMs.join(" / "),
]);
process.stdout.write(`${table(header, cells)}\n`);
if (prefix) {
  const { requests, hitRate, firstMs, firstMsWithout } = prefix;
  process.stdout.write(
    `${requests} prompts sharing ${sharedTokens} of ${sharedTokens + 10} tokens: ${(hitRate * 100).toFixed(1)} % found, first token after ${firstMs} ms; without sharing ${firstMsWithout} ms\n`,
  );
}
process.stdout.write(
  `${JSON.stringify({ size: values.size, slots: Number(values.slots), rows, prefix, load: [before, load()] })}\n`,
);
