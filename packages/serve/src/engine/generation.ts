// One answer on its way: tokens become text here, and wait, put together, until somebody takes them.

import { checkToken, RandomStream, sampleToken, type TokenChoice } from "@sisa/core";
import type { StreamDecoder, Tokenizer } from "@sisa/hub";
import type { FinishReason, GenerationEvent, GenerationRequest, PromptResult } from "./request.ts";
import { scoreOf, type TokenScore } from "./scores.ts";
import { StopMatcher } from "./stop-matcher.ts";

/** What the engine hands out. Iterating to the end, or leaving the loop, gives up the answer. */
export class Generation implements AsyncIterable<GenerationEvent> {
  /** As it came. */
  readonly request: GenerationRequest;
  /** Prompt, then what was generated. */
  readonly tokens: number[];
  /** Moments in ms, as `performance.now` gives them. */
  readonly queuedMs = performance.now();
  /** When its prompt found a slot. */
  startedMs: number | undefined;
  /** When the first token of the answer was there. */
  firstTokenMs: number | undefined;
  /** When the newest was there. */
  lastTokenMs: number | undefined;
  /** When it ended, failed or was given up. */
  endedMs: number | undefined;
  readonly #maxTokens: number;
  readonly #endOfText: number | undefined;
  readonly #random: RandomStream;
  readonly #decoder: StreamDecoder;
  readonly #matcher: StopMatcher;
  readonly #tokenizerSize: number;
  readonly #counts = new Map<number, number>();
  /** What half a character at the end of the prompt becomes unless the answer completes it; it is no part of the answer. */
  #halfCharacter: string;
  #text = "";
  #newTokens: number[] = [];
  #scores: TokenScore[] = [];
  #prompt: PromptResult | undefined;
  #finish: FinishReason | undefined;
  #error: unknown;
  #abandoned = false;
  #taken = false;
  #wake: (() => void) | undefined;

  constructor(request: GenerationRequest, tokenizer: Tokenizer, contextLength: number) {
    this.request = request;
    this.tokens = [...request.tokens];
    this.#maxTokens = request.maxTokens ?? contextLength - request.tokens.length;
    this.#endOfText = request.ignoreEndOfText ? undefined : tokenizer.endOfText;
    this.#random = new RandomStream(request.seed ?? 0, "sample");
    this.#matcher = new StopMatcher(request.stop ?? []);
    // The text of a token may depend on those before it: spaces at its beginning, the rest of a character.
    this.#decoder = tokenizer.streamDecoder();
    const whole = tokenizer.streamDecoder();
    for (const id of request.tokens) {
      if (id >= tokenizer.size) continue;
      this.#decoder.push(id);
      whole.push(id);
    }
    this.#halfCharacter = whole.flush();
    this.#tokenizerSize = tokenizer.size;
  }

  /** Tokens of the answer so far. */
  get generated(): number {
    return this.tokens.length - this.request.tokens.length;
  }

  /** Tokens of prompt and answer together at most. */
  get mostTokens(): number {
    return this.request.tokens.length + this.#maxTokens;
  }

  /** True once nothing more is to be computed: it has ended, failed, or nobody wants it. */
  get isOver(): boolean {
    return this.#finish !== undefined || this.#error !== undefined || this.isCancelled;
  }

  /** True once nobody wants it: the loop was left, or its signal aborted. */
  get isCancelled(): boolean {
    return this.#abandoned || this.request.signal?.aborted === true;
  }

  /** True once an error has ended it. */
  get hasFailed(): boolean {
    return this.#error !== undefined;
  }

  /** Why it ended; undefined until then. */
  get finish(): FinishReason | undefined {
    return this.#finish;
  }

  /** The prompt was computed. */
  promptDone(prompt: PromptResult): void {
    this.#prompt = prompt;
    if (this.#maxTokens === 0) this.#end("length");
    this.#notify();
  }

  /** How the next token is chosen, where that needs nothing but the logits as they are, and nothing needs them later. */
  choice(): TokenChoice | undefined {
    const { logprobs, temperature, topK, topP } = this.request;
    if (logprobs !== undefined || this.#isAdjusted) return undefined;
    const options = Object.entries({ temperature, topK, topP }).filter(([, value]) => value !== undefined);
    return { uniform: this.#random.uniform(this.generated), ...Object.fromEntries(options) };
  }

  /**
   * Takes the next token, or chooses it by the logits [V] after the last one.
   * @throws DataError where logits allow no choice
   */
  add(next: number | Float32Array): void {
    const { request } = this;
    const token =
      typeof next === "number"
        ? checkToken(next)
        : sampleToken(this.#adjusted(next), this.#random.uniform(this.generated), request);
    this.tokens.push(token);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    this.#newTokens.push(token);
    if (request.logprobs !== undefined && typeof next !== "number") {
      this.#scores.push(scoreOf(next, token, request.logprobs));
    }

    const ends = token === this.#endOfText;
    // Rows that only fill up the vocabulary have no text.
    if (!ends && token < this.#tokenizerSize) this.#say(this.#decoder.push(token));
    if (ends || this.#matcher.stopped) this.#end("stop");
    else if (this.generated >= this.#maxTokens) this.#end("length");
    this.#notify();
  }

  get #isPenalised(): boolean {
    const { presencePenalty = 0, frequencyPenalty = 0 } = this.request;
    return presencePenalty !== 0 || frequencyPenalty !== 0;
  }

  get #isAdjusted(): boolean {
    return this.#isPenalised || (this.request.logitBias?.size ?? 0) > 0;
  }

  #adjusted(logits: Float32Array): Float32Array {
    if (!this.#isAdjusted) return logits;
    const { logitBias, presencePenalty = 0, frequencyPenalty = 0 } = this.request;
    const adjusted = logits.slice();
    for (const [id, bias] of logitBias ?? []) adjusted[id] = (adjusted[id] ?? 0) + bias;
    if (this.#isPenalised) {
      for (const [id, count] of this.#counts) {
        adjusted[id] = (adjusted[id] ?? 0) - presencePenalty - frequencyPenalty * count;
      }
    }
    return adjusted;
  }

  #say(text: string): void {
    if (text === "") return;
    const isKnown = this.#halfCharacter !== "" && text.startsWith(this.#halfCharacter);
    this.#text += this.#matcher.push(isKnown ? text.slice(this.#halfCharacter.length) : text);
    this.#halfCharacter = "";
  }

  #end(reason: FinishReason): void {
    if (!this.#matcher.stopped) this.#say(this.#decoder.flush());
    this.#text += this.#matcher.flush();
    // The last bytes may have completed a stop.
    this.#finish = this.#matcher.stopped ? "stop" : reason;
    this.endedMs = performance.now();
  }

  /** Ends it with an error, which the reader's loop throws. */
  fail(error: unknown): void {
    if (this.isOver) return;
    this.#error = error;
    this.#notify();
  }

  /** Nobody wants the rest. */
  cancel(): void {
    this.#abandoned = true;
    this.#notify();
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationEvent, void, void> {
    const { signal } = this.request;
    const onAbort = () => this.#notify();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      while (true) {
        const event = this.#take();
        if (event) yield event;
        if (this.#taken) return;
        if (this.#error !== undefined) throw this.#error;
        signal?.throwIfAborted();
        if (this.#abandoned) return;
        if (!this.#hasNews()) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
      if (!this.isOver) this.cancel();
    }
  }

  #hasNews(): boolean {
    return this.#newTokens.length > 0 || this.#prompt !== undefined || this.isOver;
  }

  #take(): GenerationEvent | undefined {
    if (this.#newTokens.length === 0 && this.#prompt === undefined && this.#finish === undefined) return undefined;
    const event = {
      text: this.#text,
      tokens: this.#newTokens,
      scores: this.#scores,
      ...(this.#prompt === undefined ? {} : { prompt: this.#prompt }),
      ...(this.#finish === undefined ? {} : { finish: this.#finish }),
    };
    this.#taken = this.#finish !== undefined;
    [this.#text, this.#newTokens, this.#scores, this.#prompt] = ["", [], [], undefined];
    return event;
  }
}
