// The server's engine on one GPU, without HTTP: many requests at once, tokens a second of all together. Caches in pages
// beside a cache of its own for each slot. Needs an NVIDIA GPU.
//   node bench/run.mjs cuda-serve [--requests 1,8,32] [--prompt 512] [--answer 64] [--size 152m] [--precision bfloat16]
//     [--own-caches 8], requests at once with a cache for each slot
import { parseArgs } from "node:util";
import {
  type Backend,
  initialize,
  languageModel,
  type Precision,
  type PresetSize,
  preset,
  RandomStream,
} from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { cuda } from "@sisa/kernels-cuda";
import { Engine } from "@sisa/serve";
import { median } from "./support/statistics.ts";

const { values: options } = parseArgs({
  options: {
    requests: { type: "string", default: "1,8,32" },
    prompt: { type: "string", default: "512" },
    answer: { type: "string", default: "64" },
    size: { type: "string", default: "152m" },
    precision: { type: "string", default: "bfloat16" },
    "own-caches": { type: "string", default: "8" },
  },
});
const [promptTokens, answerTokens] = [Number(options.prompt), Number(options.answer)];
const vocabularySize = 50_277;
const model = languageModel(preset("sisa", options.size as PresetSize, { vocabularySize }));
const parameters = initialize(model, 1);
const word = (id: number) => ` ${id.toString(36)}`;
const textOf = (ids: ArrayLike<number>) => Array.from(ids, word).join("");
const tokenizer: Tokenizer = {
  size: vocabularySize,
  endOfText: undefined,
  encode: () => [],
  decode: textOf,
  byteLength: (ids) => textOf(ids).length,
  tokenBytes: (id) => new TextEncoder().encode(word(id)),
  streamDecoder: () => ({ push: word, flush: () => "" }),
};
await using backend = await cuda();
/** The same GPU, saying that it has no pages. */
const withoutPages: Backend = new Proxy(backend, {
  get(target, name) {
    if (name === "limits") return { ...target.limits, pagedCaches: false };
    const value: unknown = Reflect.get(target, name, target);
    return typeof value === "function" ? value.bind(target) : value;
  },
});
const line = (text: string) => process.stdout.write(`${text}\n`);
line(
  `${backend.description}; SISA ${options.size}, ${options.precision}, ${promptTokens} tokens of prompt, ${answerTokens} of answer`,
);
line(
  "| requests at once | caches | first token of the last (ms) | between tokens (ms, median) | tokens of answers a second |",
);
line("|---|---|---|---|---|");

async function measure(count: number, name: string, on: Backend): Promise<void> {
  const stream = new RandomStream(count, "prompts");
  let drawn = 0;
  const prompt = () => Array.from({ length: promptTokens }, () => stream.below(vocabularySize, drawn++));
  await using engine = await Engine.create({
    ...{ model, parameters, tokenizer, backend: on, precision: options.precision as Precision, slots: count },
    contextLength: promptTokens + answerTokens,
  });
  const ask = async (tokens: readonly number[]) => {
    const arrivals: number[] = [];
    for await (const event of engine.generate({
      tokens,
      maxTokens: answerTokens,
      temperature: 0,
      ignoreEndOfText: true,
    })) {
      arrivals.push(...event.tokens.map(() => performance.now()));
    }
    return arrivals;
  };
  const round = async () => {
    const start = performance.now();
    const all = await Promise.all(Array.from({ length: count }, () => ask(prompt())));
    const end = performance.now();
    const first = Math.max(...all.map((arrivals) => arrivals[0] ?? end)) - start;
    const gaps = all.flatMap((arrivals) => arrivals.slice(1).map((at, index) => at - (arrivals[index] ?? at)));
    return { first, between: median(gaps), rate: (1000 * count * answerTokens) / (end - start) };
  };
  await round();
  const { first, between, rate } = await round();
  line(`| ${count} | ${name} | ${first.toFixed(1)} | ${between.toFixed(2)} | ${rate.toFixed(0)} |`);
}

for (const count of options.requests.split(",").map(Number)) {
  await measure(count, "pages", backend);
  if (options["own-caches"].split(",").map(Number).includes(count)) await measure(count, "one for each", withoutPages);
}
