// Places for sequences on a backend: each slot has the caches of one sequence, and knows the tokens that they hold.

import {
  ConfigError,
  type DeviceTensor,
  GraphError,
  i32,
  Sampler,
  type TokenChoice,
  type TypedArray,
} from "@sisa/core";
import type { Beginning, Caches, CachesOptions, Lane, Numbers } from "./caches.ts";
import { LaneCaches } from "./lane-caches.ts";
import { PagedCaches } from "./paged-caches.ts";

export interface RunResult {
  /** [R,V]: of each lane's last token, or of all computed tokens of the only lane. */
  readonly logits: Float32Array;
  /** By how much the decay of each lane has fallen, where the model's form is only exact up to a limit. */
  readonly decaySpans?: Float32Array;
}

export interface NextResult {
  /** Of each lane: the token that was chosen to follow, -1 where its logits allow no choice, or logits [V] to choose by. */
  readonly next: readonly (number | Float32Array)[];
  /** As in RunResult. */
  readonly decaySpans?: Float32Array;
}

type Tensors = { readonly [name: string]: DeviceTensor };

/** What a run gives, on the device: `rows` of logits. */
interface StepOutputs {
  readonly logits: DeviceTensor;
  readonly decaySpan: DeviceTensor | undefined;
  readonly rows: number;
}

export class Slots implements AsyncDisposable {
  readonly count: number;
  readonly contextLength: number;
  readonly #options: CachesOptions;
  readonly #caches: Caches;
  /** Tokens whose rows each slot holds. */
  readonly #contents: number[][];
  /** How many of them are of runs that are known to have ended well. */
  readonly #confirmed: number[];
  /** By the rows of logits that they choose by. */
  readonly #samplers = new Map<number, Promise<Sampler>>();
  /** Inputs of runs of fixed sizes, by these. */
  readonly #kept = new Map<string, Tensors>();

  private constructor(options: CachesOptions, caches: Caches) {
    this.#options = options;
    this.#caches = caches;
    this.#contents = Array.from({ length: options.slots }, () => []);
    this.#confirmed = new Array<number>(options.slots).fill(0);
    this.count = options.slots;
    this.contextLength = options.contextLength;
  }

  /** @throws ConfigError for sizes that cannot be, and for models whose caches cannot be resumed at any token */
  static async create(options: CachesOptions): Promise<Slots> {
    const { model, backend, slots, contextLength } = options;
    const { maximumLength } = model.config;
    if (!Number.isInteger(slots) || slots < 1)
      throw new ConfigError(`serve: slots must be a whole number >= 1, got ${slots}`);
    if (!Number.isInteger(contextLength) || contextLength < 2 || contextLength > maximumLength) {
      throw new ConfigError(
        `serve: the context length must be 2 to the model's maximumLength ${maximumLength}, got ${contextLength}`,
      );
    }
    if (model.recurrentKinds.length > 0) {
      throw new ConfigError(
        `serve: layers of kind ${model.recurrentKinds.join(", ")} keep a state in place of every token, which cannot go back to an earlier one; models with such layers are not served yet`,
      );
    }
    if (model.prefix.length > 0) throw new ConfigError("serve: models with meta tokens are not served yet");
    const caches = backend.limits.pagedCaches ? new PagedCaches(options) : new LaneCaches(options);
    if (backend.limits.symbolicDims) for (const width of new Set([1, slots])) await caches.step(width, 0, 0);
    return new Slots(options, caches);
  }

  /** Tokens of a prompt that are computed in one run, at most. */
  get chunkLength(): number {
    return this.#caches.chunkLength;
  }

  /** How many tokens from the first on are in a slot already. */
  commonPrefix(slot: number, tokens: readonly number[]): number {
    const content = this.#contents[slot] ?? [];
    const end = Math.min(content.length, tokens.length);
    let length = 0;
    while (length < end && content[length] === tokens[length]) length++;
    return length;
  }

  /** Number of tokens in a slot. */
  length(slot: number): number {
    return this.#contents[slot]?.length ?? 0;
  }

  /**
   * Gives a slot the first tokens of one, which may be itself, and room for `most`.
   * @param idle slots that may be emptied for that, those first that are missed least
   * @returns how many tokens it has; undefined where there is no room as long as the others have theirs
   */
  async begin(slot: number, from: Beginning, most: number, idle: readonly number[]): Promise<number | undefined> {
    try {
      const begun = await this.#caches.begin(slot, from, most, idle);
      if (begun === undefined) return undefined;
      this.#hold(slot, (this.#contents[from.slot] ?? []).slice(0, begun.count));
      for (const emptied of begun.emptied) this.#hold(emptied, []);
      return begun.count;
    } catch (error) {
      for (const lost of new Set([slot, ...idle])) this.empty(lost);
      throw error;
    }
  }

  /** Takes back the room that a slot does not fill, and what nobody knows to be right. */
  release(slot: number): void {
    this.#hold(slot, (this.#contents[slot] ?? []).slice(0, this.#confirmed[slot]));
    this.#caches.release(slot, this.length(slot));
  }

  /** Takes back all of a slot's room: what it holds is for nobody. */
  empty(slot: number): void {
    this.#hold(slot, []);
    this.release(slot);
  }

  #hold(slot: number, tokens: readonly number[], confirmed = tokens.length): void {
    this.#contents[slot] = [...tokens];
    this.#confirmed[slot] = Math.min(confirmed, tokens.length);
  }

  /** Whether `append` leaves the work to a device; elsewhere it takes no less time than `run`. */
  get runsAhead(): boolean {
    return !this.#options.backend.limits.hostMemory;
  }

  /** Computes tokens of one sequence of which nothing is wanted, and so does not wait. What fails shows in a later run. */
  async append(lane: Lane): Promise<void> {
    await this.#run([lane], "last", () => undefined);
  }

  /** Computes tokens of one sequence, or one token of each of several. */
  async run(lanes: readonly Lane[], logitsOf: "last" | "all" = "last"): Promise<RunResult> {
    const { value, rows } = await this.#run(lanes, logitsOf, ({ logits, decaySpan }) =>
      Promise.all([logits.read(), decaySpan?.read()]),
    );
    const [logits, spans] = value;
    return { logits: this.#rows(logits, 0, rows), ...(spans && { decaySpans: floats(spans) }) };
  }

  /**
   * Computes as `run` does, and chooses the tokens that follow where the logits are: from a device only those are read,
   * and the logits where a lane needs them.
   *
   * @param choices how, for each lane; undefined for one that needs its logits. Backends in the host's memory give all
   *   their logits
   */
  async next(lanes: readonly Lane[], choices: readonly (TokenChoice | undefined)[]): Promise<NextResult> {
    const needed = !this.runsAhead || choices.includes(undefined);
    const { value } = await this.#run(lanes, "last", ({ logits, decaySpan, rows }) =>
      Promise.all([
        this.runsAhead ? this.#choose(logits, choices, rows) : [],
        needed ? logits.read() : undefined,
        decaySpan?.read(),
      ]),
    );
    const [tokens, logits, spans] = value;
    const next = lanes.map((_, lane) =>
      logits && (tokens.length === 0 || !choices[lane]) ? this.#rows(logits, lane, lane + 1) : (tokens[lane] ?? -1),
    );
    return { next, ...(spans && { decaySpans: floats(spans) }) };
  }

  #rows(logits: TypedArray, from: number, to: number): Float32Array {
    const { vocabularySize } = this.#options.model.config;
    return floats(logits).subarray(from * vocabularySize, to * vocabularySize);
  }

  /** Rows that nobody asked for, or that need their logits, are chosen by like any other. */
  async #choose(
    logits: DeviceTensor,
    choices: readonly (TokenChoice | undefined)[],
    rows: number,
  ): Promise<readonly number[]> {
    const { backend, model } = this.#options;
    const sampler = this.#samplers.get(rows) ?? Sampler.create(backend, rows, model.config.vocabularySize);
    this.#samplers.set(rows, sampler);
    return await (await sampler).choose(
      logits,
      Array.from({ length: rows }, (_, row) => choices[row] ?? { uniform: 0 }),
    );
  }

  /** @param take enqueues reads of what is wanted; undefined where nothing is, so that nobody waits for the run */
  async #run<T extends Promise<unknown> | undefined>(
    lanes: readonly Lane[],
    logitsOf: "last" | "all",
    take: (outputs: StepOutputs) => T,
  ): Promise<{ readonly value: Awaited<T>; readonly rows: number }> {
    const width = lanes.length === 1 ? 1 : this.count;
    const length = this.#caches.runLength(Math.max(...lanes.map(({ count }) => count)));
    const all = [...lanes, ...this.#caches.fillers(lanes, width, this.#contents)];
    const starts = all.map((lane) => this.#caches.startOf(lane, length));
    const places = lanes.flatMap(({ tokens, count }, lane) => {
      const last = lane * length + tokens.length - (starts[lane] ?? 0) - 1;
      return logitsOf === "last" ? [last] : Array.from({ length: count }, (_, index) => last - count + 1 + index);
    });
    const isOpen = this.#options.backend.limits.symbolicDims;
    const asked = isOpen ? places.length : logitsOf === "all" ? length : width;
    const inputs = this.#inputs({ ...numbersOf(all, starts, places, length, asked), ...this.#caches.placesOf(all) });
    try {
      const step = await this.#caches.step(width, length, asked);
      // Until the run has ended, what is written is not known.
      for (const { slot, tokens, count } of lanes) {
        this.#hold(slot, tokens.slice(0, tokens.length - count), this.#confirmed[slot]);
      }
      const { logits, decaySpan } = step.run({ ...inputs, ...this.#caches.memoryOf(all) });
      if (logits === undefined) throw new GraphError("slots: the step graph gave no logits");
      const taken = take({ logits, decaySpan, rows: asked });
      const value = await taken;
      for (const { slot, tokens } of lanes) this.#hold(slot, tokens, taken ? tokens.length : this.#confirmed[slot]);
      return { value, rows: places.length };
    } catch (error) {
      for (const slot of this.#caches.renew(all)) this.#hold(slot, []);
      throw error;
    } finally {
      if (isOpen) disposeAll(inputs);
    }
  }

  /**
   * Tensors of these numbers. Where sizes are fixed they stay, and are written again: a device finds what it has recorded by
   * the places of its inputs.
   */
  #inputs(numbers: Numbers): Tensors {
    const { backend } = this.#options;
    const entries = Object.entries(numbers);
    const key = entries.map(([, { data }]) => data.length).join();
    const known = this.#kept.get(key);
    if (known) {
      for (const [name, { data }] of entries) backend.write(known[name] as DeviceTensor, data);
      return known;
    }
    const made = Object.fromEntries(entries.map(([name, { spec, data }]) => [name, backend.tensor(spec, data)]));
    if (!backend.limits.symbolicDims) this.#kept.set(key, made);
    return made;
  }

  async close(): Promise<void> {
    for (const tensors of this.#kept.values()) disposeAll(tensors);
    for (const sampler of this.#samplers.values()) await (await sampler).close();
    await this.#caches.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Inputs of a run of so many tokens in each lane. @param asked rows of logits; those that nobody asked for are the first again */
function numbersOf(
  lanes: readonly Lane[],
  starts: readonly number[],
  places: readonly number[],
  length: number,
  asked: number,
): Numbers {
  const ids = new Int32Array(lanes.length * length);
  lanes.forEach(({ tokens }, lane) => {
    ids.set(tokens.slice(starts[lane]), lane * length);
  });
  return {
    ids: { spec: i32(lanes.length, length), data: ids },
    start: { spec: i32(lanes.length), data: Int32Array.from(starts) },
    places: { spec: i32(asked), data: Int32Array.from({ length: asked }, (_, row) => places[row] ?? places[0] ?? 0) },
  };
}

function disposeAll(tensors: Tensors): void {
  for (const tensor of Object.values(tensors)) tensor.dispose();
}

function floats(data: TypedArray): Float32Array {
  return data as Float32Array;
}
