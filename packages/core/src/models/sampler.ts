// Choosing the next token from logits: on the host in float64, or where the logits are, so that only ids are read.

import type { Backend, DeviceTensor } from "../backend.ts";
import { ConfigError, DataError } from "../errors.ts";
import { trace } from "../graph/graph.ts";
import { reshape } from "../ops/reshape.ts";
import { sampleTokens } from "../ops/sample-tokens.ts";
import { f32, i32 } from "../spec.ts";
import { GivenInput } from "./given-input.ts";

/** How the next token is chosen from logits. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the most likely token. Default 1. */
  readonly temperature?: number;
  /** Only this many of the most likely tokens; 0 for all. Default 0. */
  readonly topK?: number;
  /** Only the most likely tokens that together reach this probability. Default 1. */
  readonly topP?: number;
}

/** How one token is chosen, and the random number that decides. */
export interface TokenChoice extends SamplingOptions {
  /** In [0, 1). */
  readonly uniform: number;
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
 * The next token: the first id at which the running sum of the weights of what is kept exceeds `uniform` of their sum.
 * Filters apply in the order temperature, top-k, top-p; equal logits are ordered by id.
 *
 * @param logits  [V]; -Infinity for what is impossible
 * @param uniform a random number in [0, 1)
 * @returns its id
 * @throws DataError for logits with NaN or +Infinity, or where nothing is possible
 */
export function sampleToken(logits: ArrayLike<number>, uniform: number, options: SamplingOptions = {}): number {
  return checkToken(chosen(logits, { ...options, uniform }));
}

/** @throws DataError for what stands in place of a token where logits allow no choice */
export function checkToken(token: number): number {
  if (token >= 0) return token;
  throw new DataError(
    "sampling: expected logits that are numbers, or -Infinity for what is impossible; got NaN, +Infinity, or nothing that is possible: are all weights finite?",
  );
}

/** As `sampleToken`, but -1 for what it refuses. */
function chosen(logits: ArrayLike<number>, { uniform, temperature = 1, topK = 0, topP = 1 }: TokenChoice): number {
  const [best = 0] = likeliest(logits, 1);
  const peak = logits[best] ?? Number.NEGATIVE_INFINITY;
  if (peak === Number.NEGATIVE_INFINITY) return -1;
  for (let id = 0; id < logits.length; id++) if (Number.isNaN((logits[id] ?? 0) - peak)) return -1;
  if (temperature === 0) return best;
  const weight = (id: number) => Math.exp(((logits[id] ?? Number.NEGATIVE_INFINITY) - peak) / temperature);
  let kept = topK > 0 && topK < logits.length ? likeliest(logits, topK) : undefined;
  if (topP < 1) {
    const total = totalOf(kept, logits.length, weight);
    const candidates = kept ?? likelyEnough(logits, weight, (total * (1 - topP)) / logits.length);
    kept = nucleus(candidates, weight, topP * total);
  }
  kept?.sort((a, b) => a - b);
  return draw(kept, logits.length, weight, uniform);
}

type Weight = (id: number) => number;

/** @param ids those that count; all of `count` where left out */
function totalOf(ids: readonly number[] | undefined, count: number, weight: Weight): number {
  let total = 0;
  for (let place = 0; place < (ids?.length ?? count); place++) total += weight(ids?.[place] ?? place);
  return total;
}

/** The fewest of the first ids that together weigh as much as is wanted. */
function nucleus(ids: readonly number[], weight: Weight, wanted: number): number[] {
  let reached = 0;
  let count = 0;
  while (count < ids.length && reached < wanted) reached += weight(ids[count++] ?? 0);
  return ids.slice(0, count);
}

/** One of the ids, in their order, in proportion to their weights; of `count` ids where none are given. */
function draw(ids: readonly number[] | undefined, count: number, weight: Weight, uniform: number): number {
  let left = uniform * totalOf(ids, count, weight);
  let last = -1;
  for (let place = 0; place < (ids?.length ?? count); place++) {
    const id = ids?.[place] ?? place;
    const own = weight(id);
    if (own > 0) last = id;
    left -= own;
    if (left < 0) return id;
  }
  return last;
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

const samplingGraph = (rows: number, vocabularySize: number) =>
  trace(
    {
      logits: f32(rows, vocabularySize),
      uniform: f32(rows),
      temperature: f32(rows),
      topK: i32(rows),
      topP: f32(rows),
    },
    // As a graph takes one token a row.
    ({ logits, ...choice }) => reshape(sampleTokens(logits, choice), [rows, 1]),
  );

/** The smallest temperature that float32 divides by; smaller ones leave as little choice. */
const leastTemperature = 2 ** -120;

/** The largest number below 1 in float32. */
const belowOne = 1 - 2 ** -24;

/** Chooses tokens by logits that a backend holds. From a device, only the tokens are read. Close it when done. */
export class Sampler implements AsyncDisposable {
  readonly #rows: number;
  readonly #vocabularySize: number;
  readonly #device: DeviceSampling | undefined;
  #tokens: DeviceTensor | undefined;

  private constructor(rows: number, vocabularySize: number, device: DeviceSampling | undefined) {
    this.#rows = rows;
    this.#vocabularySize = vocabularySize;
    this.#device = device;
  }

  /** @param backend that holds the logits: [rows, vocabularySize]. It is not closed */
  static async create(backend: Backend, rows: number, vocabularySize: number): Promise<Sampler> {
    const device = backend.limits.hostMemory ? undefined : await onDevice(backend, rows, vocabularySize);
    return new Sampler(rows, vocabularySize, device);
  }

  /**
   * Enqueues the choice of one token a row; what is enqueued later may overwrite the logits.
   *
   * @param choices one for each row
   * @returns a token for each row; -1, which `checkToken` refuses, where its logits allow no choice
   * @throws DataError unless there is a choice for each row; ConfigError for options that cannot be
   */
  async choose(logits: DeviceTensor, choices: readonly TokenChoice[]): Promise<readonly number[]> {
    if (choices.length !== this.#rows) {
      throw new DataError(`sampler: expected ${this.#rows} choices, one for each row, got ${choices.length}`);
    }
    for (const choice of choices) checkSampling(choice);
    if (this.#device === undefined) {
      const all = await logits.read();
      const size = this.#vocabularySize;
      return choices.map((choice, row) => chosen(all.subarray(row * size, (row + 1) * size), choice));
    }
    const { executable, uniform, temperature, topK, topP } = this.#device;
    const floats = (of: (choice: TokenChoice) => number) => Float32Array.from(choices, of);
    uniform.write(floats((choice) => Math.min(choice.uniform, belowOne)));
    temperature.write(floats((choice) => leastOf(choice.temperature ?? 1)));
    topK.write(Int32Array.from(choices, (choice) => choice.topK ?? 0));
    topP.write(floats((choice) => choice.topP ?? 1));
    this.#tokens = executable.run({
      logits,
      uniform: uniform.tensor,
      temperature: temperature.tensor,
      topK: topK.tensor,
      topP: topP.tensor,
    }).value;
    return [...(await this.#tokens.read())];
  }

  /** What was chosen last, where it lies: int32 [rows,1] on the device, until the next choice; undefined on hosts. */
  get tokens(): DeviceTensor | undefined {
    return this.#tokens;
  }

  /** Frees what it holds on the backend. */
  async close(): Promise<void> {
    this.#device?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const leastOf = (temperature: number) => (temperature === 0 ? 0 : Math.max(temperature, leastTemperature));

type DeviceSampling = Awaited<ReturnType<typeof onDevice>>;

async function onDevice(backend: Backend, rows: number, vocabularySize: number) {
  const executable = await backend.compile(samplingGraph(rows, vocabularySize));
  const inputs = {
    uniform: new GivenInput(backend, f32(rows)),
    temperature: new GivenInput(backend, f32(rows)),
    topK: new GivenInput(backend, i32(rows)),
    topP: new GivenInput(backend, f32(rows)),
  };
  const close = () => {
    executable.close();
    for (const input of Object.values(inputs)) input.dispose();
  };
  return { executable, ...inputs, close };
}
