// What is asked of the engine and what it answers.

import { ConfigError, checkSampling, DataError, type SamplingOptions, SisaError } from "@sisa/core";
import type { TokenScore } from "./scores.ts";

/** A prompt in tokens, and how its answer is chosen and ends. */
export interface GenerationRequest extends SamplingOptions {
  /** The prompt, at least one token. */
  readonly tokens: readonly number[];
  /** Tokens to add at most; 0 only computes the prompt. Default: what the context leaves. */
  readonly maxTokens?: number;
  /** Same seed, same text, whatever else is running. Its lower 32 bits count. Default 0. */
  readonly seed?: number;
  /** The text ends before the first of these. Default none. */
  readonly stop?: readonly string[];
  /** Goes on after end-of-text. Default false. */
  readonly ignoreEndOfText?: boolean;
  /** Added to the logits of tokens, by id. Default none. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /** Taken from the logits of tokens that were generated already: once, and for each time. Default 0. */
  readonly presencePenalty?: number;
  /** For each time that the token was generated. Default 0. */
  readonly frequencyPenalty?: number;
  /** Scores generated tokens, with so many of the likeliest beside each. Default: no scores. */
  readonly logprobs?: number | undefined;
  /** Scores the prompt too, which then is computed as a whole. Default false. */
  readonly promptLogprobs?: boolean;
  /** Frees the slot once it is aborted, within one step. Default none. */
  readonly signal?: AbortSignal;
}

/** "stop" for end-of-text or a stop text, "length" where no more tokens were allowed. */
export type FinishReason = "stop" | "length";

/** What came since the last event. Events that nobody has taken yet are put together. */
export interface GenerationEvent {
  /** Whole characters that no stop can take back. */
  readonly text: string;
  /** The tokens behind it, and behind text that is still held back; end-of-text among them. */
  readonly tokens: readonly number[];
  /** One for each of `tokens`, where scores were asked for. */
  readonly scores: readonly TokenScore[];
  /** Once, when the prompt was computed. */
  readonly prompt?: PromptResult;
  /** With the last event. */
  readonly finish?: FinishReason;
}

/** What computing the prompt told. */
export interface PromptResult {
  /** Tokens that were in a slot already. */
  readonly cachedTokens: number;
  /** One for each token but the first, where asked for. */
  readonly scores: readonly TokenScore[];
}

/** The queue has no room. */
export class QueueFullError extends SisaError {
  static override readonly code: string = "QUEUE_FULL";
}

/** No work is taken any more. */
export class ShuttingDownError extends SisaError {
  static override readonly code: string = "SHUTTING_DOWN";
}

/** A prompt and what is to follow it are longer than the context. */
export class ContextLengthError extends DataError {
  static override readonly code: string = "CONTEXT_LENGTH";
}

/** @throws ConfigError, DataError, ContextLengthError */
export function checkRequest(request: GenerationRequest, vocabularySize: number, contextLength: number): void {
  checkSampling(request);
  const { tokens, maxTokens, logprobs, logitBias = new Map(), presencePenalty = 0, frequencyPenalty = 0 } = request;
  if (tokens.length === 0) throw new DataError("the prompt is empty; give at least one token, such as end-of-text");
  const isToken = (id: number) => Number.isInteger(id) && id >= 0 && id < vocabularySize;
  const wrong = tokens.find((id) => !isToken(id));
  if (wrong !== undefined) throw new DataError(`expected token ids from 0 to ${vocabularySize - 1}, got ${wrong}`);
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 0)) {
    throw new ConfigError(`maxTokens must be a whole number >= 0, got ${maxTokens}`);
  }
  const wanted = tokens.length + (maxTokens ?? 1);
  if (wanted > contextLength) {
    throw new ContextLengthError(
      `the context length is ${contextLength} tokens, but ${wanted} were requested: ${tokens.length} in the prompt and ${maxTokens ?? 1} to generate; shorten the prompt, or ask for less`,
    );
  }
  if (logprobs !== undefined && !(Number.isInteger(logprobs) && logprobs >= 0)) {
    throw new ConfigError(`logprobs must be a whole number >= 0, got ${logprobs}`);
  }
  for (const [id, bias] of logitBias) {
    if (!isToken(id) || !Number.isFinite(bias)) {
      throw new ConfigError(
        `logitBias: expected numbers for ids from 0 to ${vocabularySize - 1}, got ${bias} for ${id}`,
      );
    }
  }
  if (!Number.isFinite(presencePenalty) || !Number.isFinite(frequencyPenalty)) {
    throw new ConfigError(`penalties must be numbers, got ${presencePenalty} and ${frequencyPenalty}`);
  }
}
