// Choosing the next token from logits, on the host, in float64.

import { ConfigError } from "../errors.ts";

export interface SamplingOptions {
  /** Divides the logits; 0 takes the most likely token. Default 1. */
  readonly temperature?: number;
  /** Only this many of the most likely tokens; 0 for all. Default 0. */
  readonly topK?: number;
  /** Only the most likely tokens that together reach this probability. Default 1. */
  readonly topP?: number;
}

/** @throws ConfigError naming the option that cannot be */
export function checkSampling({ temperature = 1, topK = 0, topP = 1 }: SamplingOptions): void {
  if (!(temperature >= 0 && Number.isFinite(temperature))) {
    throw new ConfigError(`sampling: temperature must be a number >= 0, got ${temperature}`);
  }
  if (!Number.isInteger(topK) || topK < 0)
    throw new ConfigError(`sampling: topK must be a whole number >= 0, got ${topK}`);
  if (!(topP > 0 && topP <= 1)) throw new ConfigError(`sampling: topP must be above 0 and at most 1, got ${topP}`);
}

/**
 * The next token. Filters apply in the order temperature, top-k, top-p; equal logits are ordered by id.
 *
 * @param logits  [V]
 * @param uniform a random number in [0, 1)
 */
export function sampleToken(logits: ArrayLike<number>, uniform: number, options: SamplingOptions = {}): number {
  const { temperature = 1, topK = 0, topP = 1 } = options;
  if (temperature === 0) return largest(logits);
  const ids = Array.from({ length: logits.length }, (_, id) => id);
  const at = (id: number) => logits[id] ?? Number.NEGATIVE_INFINITY;
  const filtered = (topK > 0 && topK < ids.length) || topP < 1;
  if (filtered) ids.sort((a, b) => at(b) - at(a) || a - b);
  const candidates = topK > 0 ? ids.slice(0, topK) : ids;
  const peak = filtered ? at(candidates[0] ?? 0) : at(largest(logits));
  const weights = candidates.map((id) => Math.exp((at(id) - peak) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);

  let limit = total;
  if (topP < 1) {
    limit = 0;
    for (const weight of weights) {
      limit += weight;
      if (limit >= topP * total) break;
    }
  }
  let left = uniform * limit;
  for (const [index, id] of candidates.entries()) {
    left -= weights[index] ?? 0;
    if (left < 0) return id;
  }
  return candidates.at(-1) ?? 0;
}

function largest(logits: ArrayLike<number>): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if ((logits[id] ?? 0) > (logits[best] ?? 0)) best = id;
  return best;
}
