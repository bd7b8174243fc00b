// Rows out of contexts and continuations, and how texts become their tokens in the two protocols.
import type { Tokenizer } from "@sisa/hub";
import type { ScoredRow } from "./scorer.ts";

/**
 * A row that scores the tokens of a continuation after its context. What is too long is cut from the left.
 *
 * @param mostTokens of both together; the last of them is scored, not read
 */
export function continuationRow(
  context: readonly number[],
  continuation: readonly number[],
  mostTokens: number,
): ScoredRow {
  const ids = [...context, ...continuation].slice(-mostTokens);
  return rowFrom(ids, Math.max(1, ids.length - continuation.length));
}

/** A row that scores all tokens from place `first` on; `first` is at least 1. */
export function rowFrom(ids: ArrayLike<number>, first: number): ScoredRow {
  const all = Int32Array.from(ids);
  return {
    ids: all.subarray(0, -1),
    places: Int32Array.from({ length: all.length - first }, (_, index) => first - 1 + index),
    targets: all.subarray(first),
  };
}

/** Context and continuation as lm-evaluation-harness makes tokens of them. */
export interface EncodedPair {
  readonly context: readonly number[];
  readonly continuation: readonly number[];
}

/**
 * Encodes both together, so that a token may not span them only where the tokenizer splits there; what the context alone
 * does not make up is the continuation. Spaces at the end of the context move to the continuation. An empty context is
 * end-of-text, where there is one.
 * Source: lm-evaluation-harness 0.4, `TemplateLM._encode_pair` and `loglikelihood`.
 */
export function encodePair(tokenizer: Tokenizer, context: string, continuation: string): EncodedPair {
  const trimmed = context.trimEnd();
  const spaces = context.slice(trimmed.length);
  if (trimmed === "") {
    const first = tokenizer.endOfText === undefined ? [] : [tokenizer.endOfText];
    return { context: first, continuation: tokenizer.encode(spaces + continuation) };
  }
  const whole = tokenizer.encode(trimmed + spaces + continuation);
  const contextLength = tokenizer.encode(trimmed).length;
  return { context: whole.slice(0, contextLength), continuation: whole.slice(contextLength) };
}

/** The row of a pair under lm-evaluation-harness: as many tokens are read as the model has positions. */
export function harnessRow(
  tokenizer: Tokenizer,
  context: string,
  continuation: string,
  maximumLength: number,
): ScoredRow {
  const pair = encodePair(tokenizer, context, continuation);
  return continuationRow(pair.context, pair.continuation, maximumLength + 1);
}

/** The row of the paper's scripts: both parts are encoded apart, and there is room for `maximumLength` tokens in all. */
export function paperRow(
  tokenizer: Tokenizer,
  context: string,
  continuation: string,
  maximumLength: number,
): ScoredRow {
  return continuationRow(tokenizer.encode(context), tokenizer.encode(continuation), maximumLength);
}
