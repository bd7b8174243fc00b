// Choosing the next token from logits, on the host, in float64.

import { ConfigError } from "../errors.ts";

/** How the next token is chosen from logits. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the most likely token. Default 1. */
  readonly temperature?: number;
  /** Only this many of the most likely tokens; 0 for all. Default 0. */
  readonly topK?: number;
  /** Only the most likely tokens that together reach this probability. Default 1. */
  readonly topP?: number;
}

/** Checks how tokens are chosen. @throws ConfigError naming the option that cannot be */
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
 * @returns its id
 */
export function sampleToken(logits: ArrayLike<number>, uniform: number, options: SamplingOptions = {}): number {
  const { temperature = 1, topK = 0, topP = 1 } = options;
  const [best = 0] = likeliest(logits, 1);
  if (temperature === 0) return best;
  const peak = logits[best] ?? 0;
  const weight = (id: number) => Math.exp(((logits[id] ?? Number.NEGATIVE_INFINITY) - peak) / temperature);
  if (topK > 0 && topK < logits.length) {
    const candidates = likeliest(logits, topK);
    const at = (place: number) => candidates[place] ?? 0;
    return draw(topK, at, weight, uniform, topP * totalOf(topK, at, weight));
  }
  const total = totalOf(logits.length, (id) => id, weight);
  if (topP >= 1) return draw(logits.length, (id) => id, weight, uniform, total);
  const candidates = likelyEnough(logits, weight, (total * (1 - topP)) / logits.length);
  return draw(candidates.length, (place) => candidates[place] ?? 0, weight, uniform, topP * total);
}

type Weight = (id: number) => number;
type Candidates = (place: number) => number;

function totalOf(count: number, idAt: Candidates, weight: Weight): number {
  let total = 0;
  for (let place = 0; place < count; place++) total += weight(idAt(place));
  return total;
}

/** One of the first candidates that together weigh as much as is wanted, in proportion to their weights. */
function draw(count: number, idAt: Candidates, weight: Weight, uniform: number, wanted: number): number {
  let limit = 0;
  for (let place = 0; place < count && limit < wanted; place++) limit += weight(idAt(place));
  let left = uniform * limit;
  for (let place = 0; place < count; place++) {
    left -= weight(idAt(place));
    if (left < 0) return idAt(place);
  }
  return idAt(count - 1);
}

/**
 * The most likely first, those left out that weigh less than `least`: even all of them together are not needed to reach
 * top-p. Sorting the few that are left is what makes this fast.
 */
function likelyEnough(logits: ArrayLike<number>, weight: Weight, least: number): number[] {
  const kept: number[] = [];
  for (let id = 0; id < logits.length; id++) if (weight(id) >= least) kept.push(id);
  return kept.sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
}

/**
 * Ids of the largest in falling order, equal ones by id.
 *
 * @param logits [V]
 */
export function likeliest(logits: ArrayLike<number>, count: number): number[] {
  const at = (id: number | undefined) => logits[id ?? -1] ?? Number.NEGATIVE_INFINITY;
  // Many are found faster by sorting all.
  if (count > 64) {
    const ids = Array.from({ length: logits.length }, (_, id) => id);
    return ids.sort((a, b) => at(b) - at(a) || a - b).slice(0, count);
  }
  const ids: number[] = [];
  for (let id = 0; id < logits.length && count > 0; id++) {
    if (ids.length === count && at(id) <= at(ids[count - 1])) continue;
    let place = ids.length === count ? count - 1 : ids.length;
    for (; place > 0 && at(ids[place - 1]) < at(id); place--) ids[place] = ids[place - 1] ?? 0;
    ids[place] = id;
  }
  return ids;
}
