// POST /v1/completions: texts are continued; token ids may be given in place of text, and prompts scored.

import type { Tokenizer } from "@sisa/hub";
import type { GenerationEvent, GenerationRequest } from "../engine/request.ts";
import type { TokenScore } from "../engine/scores.ts";
import { ApiError } from "./errors.ts";
import type { CompletionLogprobs, CompletionRequest, CompletionResponse } from "./schemas.ts";
import { Answers, checkModel, type Reply, type Service, samplingOf } from "./service.ts";

/** @throws ApiError, and the engine's errors */
export function startCompletion(
  service: Service,
  body: CompletionRequest,
  signal: AbortSignal,
): Reply<CompletionResponse> {
  checkModel(service, body.model);
  if (body.suffix) {
    const message = "suffix: this model continues texts and cannot fill a gap; leave suffix out";
    throw new ApiError(400, message, { param: "suffix" });
  }
  const n = body.n ?? 1;
  const perPrompt = Math.max(n, body.best_of ?? 0);
  const isRanked = perPrompt > n;
  if (isRanked && body.stream) {
    const message = `best_of: the best of ${perPrompt} is known only at the end, so it cannot be streamed`;
    throw new ApiError(400, message, { param: "best_of" });
  }
  const { engine } = service;
  const prompts = promptsOf(body.prompt);
  const logprobs = body.logprobs ?? (isRanked ? 0 : undefined);
  const answers = new Answers(service, signal, { prompts: prompts.length, perPrompt }, () => {
    const shared = samplingOf(body, service);
    return prompts.map((prompt): GenerationRequest => {
      const tokens = typeof prompt === "string" ? tokensOf(prompt, engine.tokenizer) : prompt;
      const room = Math.max(1, engine.contextLength - tokens.length);
      return {
        ...shared,
        tokens,
        maxTokens: body.max_tokens ?? Math.min(16, room),
        ...(logprobs === undefined ? {} : { logprobs, promptLogprobs: body.echo === true && body.logprobs != null }),
      };
    });
  });

  const base = {
    id: `cmpl-${crypto.randomUUID()}`,
    object: "text_completion" as const,
    created: Math.floor(Date.now() / 1000),
    model: service.modelName,
    system_fingerprint: service.fingerprint,
  };
  const writers = answers.generations.map(
    ({ request }) => new ChoiceWriter(request, engine.tokenizer, body.echo === true, body.logprobs != null),
  );

  return {
    answers,
    async whole() {
      const parts = writers.map(() => [] as ChoicePart[]);
      for await (const [choice, event] of answers.events()) {
        const part = writers[choice]?.write(event);
        if (part) parts[choice]?.push(part);
      }
      const kept = isRanked ? bestOf(writers, perPrompt, n) : writers.map((_, choice) => choice);
      const choices = kept.map((choice, index) => ({ index, ...joined(parts[choice] ?? []) }));
      return { ...base, choices, usage: answers.usage() };
    },
    async *chunks() {
      const { include_usage: withUsage, continuous_usage_stats: always } = body.stream_options ?? {};
      for await (const [index, event] of answers.events()) {
        const part = writers[index]?.write(event);
        if (part === undefined) continue;
        const usage = always ? { usage: answers.usage() } : withUsage ? { usage: null } : {};
        yield { ...base, choices: [{ index, ...part }], ...usage };
      }
      if (withUsage) yield { ...base, choices: [], usage: answers.usage() };
    },
  };
}

type Prompt = string | readonly number[];

function promptsOf(prompt: CompletionRequest["prompt"]): readonly Prompt[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as Prompt[]);
}

/** Tokens of a prompt; of an empty one, the token that stands before every text. */
function tokensOf(text: string, tokenizer: Tokenizer): number[] {
  const tokens = tokenizer.encode(text);
  if (tokens.length > 0 || tokenizer.endOfText === undefined) return tokens;
  return [tokenizer.endOfText];
}

interface ChoicePart {
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  readonly finish_reason: "stop" | "length" | null;
}

/** Turns the events of one answer into parts of a choice. */
class ChoiceWriter {
  /** Sum of the logarithms of the probabilities of what was generated, and of how many tokens. */
  total = 0;
  count = 0;
  readonly #request: GenerationRequest;
  readonly #tokenizer: Tokenizer;
  readonly #echo: boolean;
  readonly #scored: boolean;
  readonly #offsets: (id: number) => number;

  constructor(request: GenerationRequest, tokenizer: Tokenizer, echo: boolean, scored: boolean) {
    this.#request = request;
    this.#tokenizer = tokenizer;
    this.#echo = echo;
    this.#scored = scored;
    this.#offsets = offsetCounter(tokenizer);
  }

  write({ text, tokens, scores, prompt, finish }: GenerationEvent): ChoicePart | undefined {
    for (const { logprob } of scores) this.total += logprob;
    this.count += scores.length;
    const echoed = this.#echo && prompt ? this.#request.tokens : [];
    if (text === "" && finish === undefined && echoed.length === 0 && (!this.#scored || tokens.length === 0)) {
      return undefined;
    }
    const given = echoed.length > 0 ? promptText(echoed, this.#tokenizer) : "";
    return {
      text: given + text,
      logprobs: this.#scored ? this.#logprobs(echoed, prompt?.scores ?? [], scores) : null,
      finish_reason: finish ?? null,
    };
  }

  #logprobs(
    echoed: readonly number[],
    promptScores: readonly TokenScore[],
    scores: readonly TokenScore[],
  ): CompletionLogprobs {
    const [first] = echoed;
    // Nothing comes before the first token of a prompt that its probability could depend on.
    const opening = first === undefined ? [] : [{ token: first, logprob: null, top: null }];
    const all = [...opening, ...(first === undefined ? [] : promptScores), ...scores];
    const textOf = (id: number) => tokenText(id, this.#tokenizer);
    return {
      tokens: all.map(({ token }) => textOf(token)),
      token_logprobs: all.map(({ logprob }) => logprob),
      top_logprobs: all.map(({ token, logprob, top }) => {
        if (top === null || logprob === null) return null;
        // Where a vocabulary has one text twice, the likelier token is kept.
        const record = new Map<string, number>();
        for (const entry of [...top, { token, logprob }]) {
          const text = textOf(entry.token);
          if (!record.has(text)) record.set(text, entry.logprob);
        }
        return Object.fromEntries(record);
      }),
      text_offset: all.map(({ token }) => this.#offsets(token)),
    };
  }
}

/** Where in the text each token begins. */
function offsetCounter(tokenizer: Tokenizer): (id: number) => number {
  const decoder = tokenizer.streamDecoder();
  let offset = 0;
  return (id) => {
    const begin = offset;
    if (id < tokenizer.size && id !== tokenizer.endOfText) offset += decoder.push(id).length;
    return begin;
  };
}

/** Whole characters of a prompt: one that it breaks off in comes with the answer. */
function promptText(tokens: readonly number[], tokenizer: Tokenizer): string {
  const decoder = tokenizer.streamDecoder();
  return tokens.map((id) => (id < tokenizer.size ? decoder.push(id) : "")).join("");
}

/**
 * A token on its own: its text; `bytes:\xNN...` for a part of a character, `token_id:N` for a row that only fills up the
 * vocabulary, so that tokens are told apart.
 */
export function tokenText(id: number, tokenizer: Tokenizer): string {
  if (id >= tokenizer.size) return `token_id:${id}`;
  const bytes = tokenizer.tokenBytes(id);
  try {
    return wholeCharacters.decode(bytes);
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
  }
}

const wholeCharacters = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function joined(parts: readonly ChoicePart[]): ChoicePart {
  const scored = parts.flatMap(({ logprobs }) => logprobs ?? []);
  return {
    text: parts.map(({ text }) => text).join(""),
    logprobs:
      scored.length === 0
        ? null
        : {
            tokens: scored.flatMap(({ tokens }) => tokens),
            token_logprobs: scored.flatMap(({ token_logprobs }) => token_logprobs),
            top_logprobs: scored.flatMap(({ top_logprobs }) => top_logprobs),
            text_offset: scored.flatMap(({ text_offset }) => text_offset),
          },
    finish_reason: parts.at(-1)?.finish_reason ?? null,
  };
}

/** The `n` answers to each prompt whose tokens are likeliest on average, the likeliest first. */
function bestOf(writers: readonly ChoiceWriter[], perPrompt: number, n: number): number[] {
  const score = (choice: number) => (writers[choice]?.total ?? 0) / Math.max(1, writers[choice]?.count ?? 0);
  const kept: number[] = [];
  for (let first = 0; first < writers.length; first += perPrompt) {
    const group = Array.from({ length: perPrompt }, (_, sample) => first + sample);
    kept.push(...group.sort((a, b) => score(b) - score(a)).slice(0, n));
  }
  return kept;
}
