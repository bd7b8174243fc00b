// Generation at batch 1 on the onnxruntime backend beside llama.cpp (node-llama-cpp), in turns: prefill of 512 tokens with
// the logits of the last, and decoding with the cache behind 512 and 1024 tokens. The Transformer has the same weights on
// both sides; SISA has as many parameters.
// npm run bench -- generation-vs-llama [--threads 2] [--rounds 6] [--size 50m]

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import {
  type Backend,
  Decoder,
  initialize,
  languageModel,
  type ModelConfig,
  type PresetSize,
  parameterCount,
  preset,
  sampleToken,
} from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { getLlama, LlamaLogLevel, type Token } from "node-llama-cpp";
import { writeGguf } from "./support/gguf.ts";
import { alternating, least, load, median, rounded, table } from "./support/statistics.ts";

const contexts = [512, 1024] as const;
const prefillLength = 512;
const decodeSteps = 16;
/** How far the logarithms of the likeliest tokens' probabilities may be apart; llama.cpp keeps its cache in float16. */
const tolerance = 0.02;

const measures = ["prefill", "decode-512", "decode-1024"] as const;
type Measure = (typeof measures)[number];

/** Seconds a token. */
type Times = Record<Measure, number[]>;
const noTimes = (): Times => ({ prefill: [], "decode-512": [], "decode-1024": [] });

/** A model that goes on from a prompt. */
interface Generator {
  /** Starts anew with a prompt; returns the likeliest next token. */
  begin(prompt: readonly number[], context: number): Promise<number>;
  /** Adds a token; returns the likeliest next one. */
  next(token: number): Promise<number>;
  /** Logarithms of the probabilities of some tokens after a prompt. */
  logProbabilities(prompt: readonly number[], tokens: readonly number[]): Promise<number[]>;
  close(): Promise<void>;
}

/** Token ids without meaning, none of them special to llama.cpp. */
function promptOf(length: number): number[] {
  return Array.from({ length }, (_, index) => 300 + ((index * 7919) % 40_000));
}

async function ourGenerator(
  backend: Backend,
  config: ModelConfig,
  parameters: { readonly [name: string]: Float32Array },
): Promise<Generator> {
  const model = languageModel(config);
  const decoders = new Map<number, Decoder>();
  for (const context of contexts) {
    const capacity = context + 4 * decodeSteps;
    decoders.set(context, await Decoder.create({ model, parameters, backend, capacity }));
  }
  let decoder: Decoder | undefined;
  let position = 0;
  const append = async (tokens: readonly number[]) => {
    const logits = await decoder?.append([tokens], [position]);
    position += tokens.length;
    return logits ?? new Float32Array();
  };
  const begin = (prompt: readonly number[], context: number) => {
    decoder = decoders.get(context);
    position = 0;
    return append(prompt);
  };
  const greedy = { temperature: 0 };
  return {
    begin: async (prompt, context) => sampleToken(await begin(prompt, context), 0, greedy),
    next: async (token) => sampleToken(await append([token]), 0, greedy),
    async logProbabilities(prompt, tokens) {
      const logits = await begin(prompt, contexts[0]);
      const peak = logits.reduce((a, b) => Math.max(a, b));
      const total = logits.reduce((sum, logit) => sum + Math.exp(logit - peak), 0);
      return tokens.map((token) => (logits[token] ?? Number.NaN) - peak - Math.log(total));
    },
    async close() {
      for (const one of decoders.values()) await one.close();
    },
  };
}

async function llamaGenerator(
  file: string,
  threads: number,
): Promise<Generator & { top(prompt: number[]): Promise<number[]> }> {
  const llama = await getLlama({
    gpu: false,
    build: "never",
    skipDownload: true,
    maxThreads: threads,
    progressLogs: false,
    logLevel: LlamaLogLevel.error,
    // It would warn that the dummy vocabulary does not give a text back.
    logger: () => {},
  });
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
  const contextSize = Math.max(...contexts) + 4 * decodeSteps;
  const context = await model.createContext({ contextSize, batchSize: prefillLength, threads });
  const sequence = context.getSequence();
  const evaluate = async (tokens: readonly number[], probabilities: boolean) => {
    const ids = tokens as readonly Token[];
    const [last] = ids.slice(-1);
    if (last === undefined) throw new Error("llama.cpp: expected at least one token");
    const generateNext = probabilities ? { probabilities } : { token: true, options: { temperature: 0 } };
    const results = await sequence.controlledEvaluate([...ids.slice(0, -1), [last, { generateNext }]]);
    return results.at(-1)?.next;
  };
  const tokenOf = async (tokens: readonly number[]) => {
    const token = (await evaluate(tokens, false))?.token;
    if (token === undefined || token === null) throw new Error("llama.cpp gave no token");
    return token;
  };
  const probabilitiesAfter = async (prompt: readonly number[]) => {
    await sequence.clearHistory();
    return (await evaluate(prompt, true))?.probabilities ?? new Map<Token, number>();
  };
  return {
    async begin(prompt) {
      await sequence.clearHistory();
      return tokenOf(prompt);
    },
    next: (token) => tokenOf([token]),
    async logProbabilities(prompt, tokens) {
      const probabilities = await probabilitiesAfter(prompt);
      return tokens.map((token) => Math.log(probabilities.get(token as Token) ?? 0));
    },
    async top(prompt) {
      const sorted = [...(await probabilitiesAfter(prompt))].sort(([, a], [, b]) => b - a);
      return sorted.slice(0, 50).map(([token]) => token);
    },
    async close() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

async function measure(generator: Generator, times: Times): Promise<void> {
  for (const context of contexts) {
    const prompt = promptOf(context);
    const start = performance.now();
    let token = await generator.begin(prompt, context);
    const prompted = performance.now();
    for (let step = 0; step < decodeSteps; step++) token = await generator.next(token);
    const end = performance.now();
    if (context === prefillLength) times.prefill.push((prompted - start) / 1000 / prefillLength);
    times[`decode-${context}`].push((end - prompted) / 1000 / decodeSteps);
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      threads: { type: "string", default: "2" },
      rounds: { type: "string", default: "6" },
      size: { type: "string", default: "50m" },
    },
  });
  const [threads, rounds, size] = [Number(values.threads), Number(values.rounds), values.size as PresetSize];
  const folder = mkdtempSync(path.join(tmpdir(), "sisa-bench-"));
  await using backend = await onnxruntime({ threads });
  const loadBefore = load();
  try {
    const transformer = preset("transformer", size);
    const sisa = preset("sisa", size);
    const transformerWeights = initialize(languageModel(transformer), 1);
    const file = path.join(folder, "transformer.gguf");
    writeGguf(file, transformer, transformerWeights);
    const llama = await llamaGenerator(file, threads);
    const ours = await ourGenerator(backend, transformer, transformerWeights);
    const oursSisa = await ourGenerator(backend, sisa, initialize(languageModel(sisa), 1));

    const prompt = promptOf(64);
    const likeliest = await llama.top(prompt);
    const [theirLogs, ourLogs] = [
      await llama.logProbabilities(prompt, likeliest),
      await ours.logProbabilities(prompt, likeliest),
    ];
    const apart = Math.max(...likeliest.map((_, index) => Math.abs((theirLogs[index] ?? 0) - (ourLogs[index] ?? 0))));
    process.stdout.write(
      `log probabilities of the ${likeliest.length} likeliest tokens differ by at most ${rounded(apart)}\n`,
    );
    if (!(apart <= tolerance)) {
      process.stderr.write("the two sides do not compute the same model\n");
      return 1;
    }

    const sides = { llama, transformer: ours, sisa: oursSisa };
    const times: Record<keyof typeof sides, Times> = { llama: noTimes(), transformer: noTimes(), sisa: noTimes() };
    for (const side of Object.values(sides)) await measure(side, noTimes());
    const turns = Object.entries(sides).map(
      ([name, side]) =>
        () =>
          measure(side, times[name as keyof typeof sides]),
    );
    await alternating(rounds, turns);
    for (const side of Object.values(sides)) await side.close();

    const counts = [transformer, sisa].map((config) => parameterCount(languageModel(config)).toLocaleString("en"));
    process.stdout.write(
      `\nTransformer ${counts[0]} and SISA ${counts[1]} parameters, float32, batch 1, ${threads} threads; tokens/s, medians\n`,
    );
    const json: Record<string, unknown> = {
      benchmark: "generation-vs-llama",
      size,
      threads,
      rounds,
      load: [loadBefore, load()],
    };
    const rows = measures.map((name) => {
      const perSecond = (side: keyof typeof times, statistic = median) => 1 / statistic(times[side][name]);
      const ratio = (side: keyof typeof times, statistic = median) =>
        perSecond(side, statistic) / perSecond("llama", statistic);
      json[name] = Object.fromEntries(
        (["transformer", "sisa"] as const).flatMap((side) => [
          [`${side}Ratio`, rounded(ratio(side))],
          [`${side}RatioOfBest`, rounded(ratio(side, least))],
        ]),
      );
      return [
        name,
        ...(["llama", "transformer", "sisa"] as const).map((side) => perSecond(side).toFixed(1)),
        ...(["transformer", "sisa"] as const).flatMap((side) => [
          ratio(side).toFixed(2),
          ratio(side, least).toFixed(2),
        ]),
      ];
    });
    const header = ["", "llama.cpp", "transformer", "sisa", "ratio transformer", "of best", "ratio sisa", "of best"];
    process.stdout.write(`${table(header, rows)}\n${JSON.stringify(json)}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return 0;
}

process.exitCode = await main();
