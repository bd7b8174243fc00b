// What the model thinks of tokens: log probabilities, and the likeliest tokens of a row of logits.

import { likeliest } from "@sisa/core";

/** What the model said of one token before it came. */
export interface TokenScore {
  /** Its id. */
  readonly token: number;
  /** Natural logarithm of the model's probability, before temperature, bias and penalties. */
  readonly logprob: number;
  /** The likeliest tokens in falling order, equal ones by id. */
  readonly top: readonly {
    /** Its id. */
    readonly token: number;
    /** As of the token itself. */
    readonly logprob: number;
  }[];
}

/** @param count how many of the likeliest tokens are listed */
export function scoreOf(logits: Float32Array, token: number, count: number): TokenScore {
  let peak = Number.NEGATIVE_INFINITY;
  for (const value of logits) if (value > peak) peak = value;
  let total = 0;
  for (const value of logits) total += Math.exp(value - peak);
  const shift = peak + Math.log(total);
  const logprob = (id: number) => (logits[id] ?? Number.NEGATIVE_INFINITY) - shift;
  const top = likeliest(logits, count).map((id) => ({ token: id, logprob: logprob(id) }));
  return { token, logprob: logprob(token), top };
}
