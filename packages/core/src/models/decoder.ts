// Cached decoding of a language model on any backend: writes tokens into caches and gives the logits after them.

import type { Backend, DeviceTensor, Executable } from "../backend.ts";
import type { TypedArray } from "../dtype.ts";
import { ConfigError, DataError, GraphError } from "../errors.ts";
import type { GraphInputs, GraphOutputs } from "../graph/graph.ts";
import { simplify } from "../graph/passes.ts";
import { inPrecision, type Precision } from "../graph/precision.ts";
import { sdpaClamp } from "../ops/sisa-attention.ts";
import { i32, type TensorSpec } from "../spec.ts";
import { GivenInput } from "./given-input.ts";
import type { LanguageModel } from "./language-model.ts";
import { checkToken, Sampler, type TokenChoice } from "./sampler.ts";

/** A model on a backend, and how much its caches hold. */
export interface DecoderOptions {
  /** What computes the logits. */
  readonly model: LanguageModel;
  /** By the model's names, row major. */
  readonly parameters: { readonly [name: string]: Float32Array };
  /** Where it runs. It is not closed. */
  readonly backend: Backend;
  /** Tokens that a row can hold. Default: the model's maximum length. */
  readonly capacity?: number;
  /** Rows. Default 1. */
  readonly batch?: number;
  /** Widths of weights, caches and what is computed, where the backend has them. Default "float32". */
  readonly precision?: Precision;
  /**
   * Go on where form `sdpa` would clamp, although cached decoding then differs from the full pass. Default false.
   */
  readonly allowClamp?: boolean;
}

/** What a run of so many tokens of each row takes beside the caches. */
type Inputs = Readonly<Record<"ids" | "start" | "last", GivenInput>>;

/** A model with its caches on a backend. Close it when done. */
export class Decoder implements AsyncDisposable {
  /** Tokens that a row can hold. */
  readonly capacity: number;
  /** Rows that are decoded together. */
  readonly batch: number;
  readonly #options: DecoderOptions;
  readonly #executables: ReadonlyMap<number, Executable<GraphInputs, GraphOutputs>>;
  readonly #caches: { readonly [name: string]: DeviceTensor };
  /** Tokens that each row holds. */
  readonly #held: number[];
  #sampler: Sampler | undefined;
  /** What was chosen last, one token a row: where the sampler has left them, [batch,1], or as they were read. */
  #chosen: DeviceTensor | readonly number[] | undefined;
  readonly #inputs = new Map<number, Inputs>();

  private constructor(
    options: DecoderOptions,
    executables: ReadonlyMap<number, Executable<GraphInputs, GraphOutputs>>,
    caches: { readonly [name: string]: DeviceTensor },
    capacity: number,
    batch: number,
  ) {
    this.#options = options;
    this.#executables = executables;
    this.#caches = caches;
    this.capacity = capacity;
    this.batch = batch;
    this.#held = new Array<number>(batch).fill(0);
  }

  /**
   * Compiles the model and allocates its caches.
   * @throws ConfigError where the capacity is not from 1 to the model's maximum length
   */
  static async create(options: DecoderOptions): Promise<Decoder> {
    const { model, backend, parameters, batch = 1, precision = "float32" } = options;
    const { capacity = model.config.maximumLength } = options;
    if (capacity > model.config.maximumLength || capacity < 1) {
      throw new ConfigError(
        `decoder: capacity must be 1 to the model's maximumLength ${model.config.maximumLength}, got ${capacity}`,
      );
    }
    const { symbolicDims, chunkLength } = backend.limits;
    // Of backends that need a fixed count: longer inputs are cut, shorter ones padded.
    const longest = Math.min(chunkLength, capacity);
    // What is padded, and rows that have ended while others go on, write past their end.
    const rows = capacity + model.prefix.length + (symbolicDims ? 1 : longest);
    const graph = simplify(inPrecision(model.decodeGraph(batch, rows), precision));
    const names = Object.keys(model.cacheSpecs());
    const compile = (bound: typeof graph) =>
      backend.compile(bound, { state: Object.fromEntries(names.map((name) => [name, name])), constants: parameters });
    const executables = new Map<number, Executable<GraphInputs, GraphOutputs>>();
    if (symbolicDims) executables.set(0, await compile(graph));
    const lengths = symbolicDims ? [] : [1, longest];
    // A scan of unknown length goes by whole chunks, so single steps get a graph of their own.
    if (symbolicDims && model.recurrentKinds.length > 0) lengths.push(1);
    for (const length of new Set(lengths)) executables.set(length, await compile(graph.bind({ T: length })));
    const caches = Object.fromEntries(names.map((name) => [name, backend.tensor(graph.inputs[name] as TensorSpec)]));
    return new Decoder(options, executables, caches, capacity, batch);
  }

  /**
   * Appends tokens to every row and returns the logits after the last one of each row.
   *
   * @param rows  one list of tokens per row, none empty
   * @param start how many tokens each row keeps from before. It may go back to resume any prefix, but where the model
   *              keeps states it must be 0 or all that the row holds
   * @returns logits, [batch, V] row major
   * @throws DataError where a row is empty, would not fit, cannot go back, or has an id outside the vocabulary, and
   *   where form `sdpa` would clamp; GraphError where the model gives no logits
   */
  async append(rows: readonly (readonly number[])[], start: readonly number[]): Promise<Float32Array> {
    const { vocabularySize } = this.#options.model.config;
    const result = new Float32Array(this.batch * vocabularySize);
    const ends = await this.#append(rows, start, (logits) => logits.read());
    for (const { row, value } of ends) {
      const first = row * vocabularySize;
      result.set(value.subarray(first, first + vocabularySize), first);
    }
    return result;
  }

  /**
   * Appends tokens as `append` does, and returns the token that is chosen to follow each row. Where the logits are on a
   * device, they stay there; `follow` goes on from the tokens.
   *
   * @param choices how, for each row
   * @returns a token for each row
   * @throws DataError where `append` would, or where logits allow no choice; ConfigError for options that cannot be;
   *         GraphError where the model's graph gives no logits
   */
  async next(
    rows: readonly (readonly number[])[],
    start: readonly number[],
    choices: readonly TokenChoice[],
  ): Promise<readonly number[]> {
    const { backend, model } = this.#options;
    this.#sampler ??= await Sampler.create(backend, this.batch, model.config.vocabularySize);
    const sampler = this.#sampler;
    const ends = await this.#append(rows, start, (logits) => sampler.choose(logits, choices));
    const tokens = new Array<number>(this.batch).fill(-1);
    for (const { row, value } of ends) tokens[row] = checkToken(value[row] ?? -1);
    const isOneRun = new Set(ends.map(({ value }) => value)).size === 1;
    this.#chosen = (isOneRun && sampler.tokens) || tokens;
    return tokens;
  }

  /** Whether `follow` may be called again before its token is known: a device takes it from where it was chosen. */
  get runsAhead(): boolean {
    return !this.#options.backend.limits.hostMemory;
  }

  /**
   * The token that is chosen after those that `next` or `follow` chose last, of each row. Where the decoder runs ahead, all
   * work is enqueued at once, whether the token before is known or not; elsewhere one call must end before the next.
   *
   * @param choices how, for each row
   * @returns a token for each row
   * @throws DataError where `next` would, and where nothing was chosen before; ConfigError for options that cannot be;
   *         GraphError where the model's graph gives no logits
   */
  async follow(choices: readonly TokenChoice[]): Promise<readonly number[]> {
    const [chosen, sampler] = [this.#chosen, this.#sampler];
    if (chosen === undefined || sampler === undefined) {
      throw new DataError("decoder: follow goes on from chosen tokens; call next first");
    }
    const start = [...this.#held];
    const isKnown = Array.isArray(chosen);
    if (isKnown && !this.runsAhead) {
      return this.next(
        chosen.map((token) => [token]),
        start,
        choices,
      );
    }
    // Which tokens they are cannot be checked here; gather refuses those that are none.
    for (let row = 0; row < this.batch; row++) this.#check([0], row, start[row] ?? 0);
    const inputs = this.#inputsFor(1);
    if (isKnown) inputs.ids.write(Int32Array.from(chosen));
    const ids = isKnown ? inputs.ids.tensor : (chosen as DeviceTensor);
    const last = start.map(() => 0);
    const { logits, decaySpan } = this.#enqueue(1, ids, this.#placesOf(start), last);
    this.#held.forEach((held, row) => {
      this.#held[row] = held + 1;
    });
    const span = this.#options.allowClamp ? undefined : decaySpan?.read();
    const result = sampler.choose(logits, choices);
    this.#chosen = sampler.tokens;
    const [tokens, spans] = await Promise.all([result, span]);
    if (spans) checkSpan(spans, [...start.keys()]);
    return tokens.map(checkToken);
  }

  /** Positions in the caches of rows that hold so many tokens: meta tokens stand in front of every sequence. */
  #placesOf(start: readonly number[]): number[] {
    return start.map((position) => (position === 0 ? 0 : position + this.#options.model.prefix.length));
  }

  /**
   * Enqueues all runs that the tokens need, and waits at their end.
   * @param read enqueues what is wanted of the logits [batch, V] of a run in which rows end
   * @returns for each row what was wanted of the run in which it ends
   */
  async #append<R>(
    rows: readonly (readonly number[])[],
    start: readonly number[],
    read: (logits: DeviceTensor) => Promise<R>,
  ): Promise<readonly { readonly row: number; readonly value: R }[]> {
    if (rows.length !== this.batch || start.length !== this.batch) {
      throw new DataError(
        `decoder: expected ${this.batch} rows, got ${rows.length} of tokens and ${start.length} starts`,
      );
    }
    rows.forEach((row, index) => {
      this.#check(row, index, start[index] ?? 0);
    });
    const { model, allowClamp } = this.#options;
    this.#chosen = undefined;
    // Meta tokens count for nobody outside.
    const tokens = rows.map((row, index) => (start[index] === 0 ? [...model.prefix, ...row] : row));
    const from = this.#placesOf(start);
    const longest = Math.max(...tokens.map((row) => row.length));
    const room = this.capacity + model.prefix.length + 1;

    const pending: Promise<{ readonly ended: readonly number[]; readonly value: R }>[] = [];
    for (let offset = 0; offset < longest; ) {
      // A row that has ended waits at its end; what it writes there is overwritten by the next append.
      const first = tokens.map((row) => Math.min(offset, row.length));
      const positions = first.map((place, index) => (from[index] ?? 0) + place);
      const length = this.#runLength(longest - offset, room - Math.max(...positions));
      const { logits, decaySpan } = this.#run(
        tokens.map((row, index) => row.slice(first[index], (first[index] ?? 0) + length)),
        positions,
        length,
      );
      const end = offset + length;
      const ended = tokens.flatMap((row, index) => (offset < row.length && row.length <= end ? [index] : []));
      if (ended.length > 0) {
        // A row's decay only grows, so its last run tells of all.
        const spans = allowClamp ? undefined : decaySpan?.read();
        const result = Promise.all([spans, read(logits)]).then(([span, value]) => {
          if (span) checkSpan(span, ended);
          return { ended, value };
        });
        // Where a later run cannot be enqueued, nobody waits for this one.
        result.catch(() => undefined);
        pending.push(result);
      }
      offset = end;
    }
    rows.forEach((row, index) => {
      this.#held[index] = (start[index] ?? 0) + row.length;
    });
    const runs = await Promise.all(pending);
    return runs.flatMap(({ ended, value }) => ended.map((row) => ({ row, value })));
  }

  /** @throws DataError unless tokens can be appended to a row at a position */
  #check(row: readonly number[], index: number, start: number): void {
    const { vocabularySize } = this.#options.model.config;
    const { recurrentKinds } = this.#options.model;
    const end = start + row.length;
    const held = this.#held[index] ?? 0;
    if (row.length === 0) throw new DataError(`decoder: row ${index} has no tokens`);
    if (end > this.capacity)
      throw new DataError(`decoder: row ${index} needs ${end} tokens, its cache holds ${this.capacity}`);
    const wrong = row.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabularySize);
    if (wrong !== undefined)
      throw new DataError(`decoder: expected token ids from 0 to ${vocabularySize - 1}, got ${wrong}`);
    if (recurrentKinds.length > 0 && start !== 0 && start !== held) {
      throw new DataError(
        `decoder: row ${index} holds ${held} tokens and cannot go on from ${start}: ${recurrentKinds.join(", ")} layers keep a state, not every position; start at 0 or ${held}`,
      );
    }
  }

  /** How many tokens the next run takes of every row, padding included; `room` is what the fullest row has in its cache. */
  #runLength(left: number, room: number): number {
    if (this.#executables.has(0)) return Math.min(left, room);
    return left > 1 ? Math.max(...this.#executables.keys()) : 1;
  }

  /** Enqueues up to `length` tokens of each row; the logits are those after the last of each, of rows with none anything. */
  #run(rows: readonly (readonly number[])[], positions: readonly number[], length: number) {
    const inputs = this.#inputsFor(length);
    const ids = new Int32Array(this.batch * length);
    rows.forEach((row, index) => {
      ids.set(row, index * length);
    });
    inputs.ids.write(ids);
    return this.#enqueue(
      length,
      inputs.ids.tensor,
      positions,
      rows.map((row) => row.length - 1),
    );
  }

  #enqueue(length: number, ids: DeviceTensor, positions: readonly number[], lasts: readonly number[]) {
    const { start, last } = this.#inputsFor(length);
    start.write(Int32Array.from(positions));
    last.write(Int32Array.from(lasts));
    const executable = this.#executables.get(length) ?? this.#executables.get(0);
    const given = { ...this.#caches, ids, start: start.tensor, last: last.tensor };
    const { logits, decaySpan } = executable?.run(given) ?? {};
    if (logits === undefined) throw new GraphError("decoder: the decode graph gave no logits");
    return { logits, decaySpan };
  }

  #inputsFor(length: number) {
    const known = this.#inputs.get(length);
    if (known) return known;
    const { backend } = this.#options;
    const inputs = {
      ids: new GivenInput(backend, i32(this.batch, length)),
      start: new GivenInput(backend, i32(this.batch)),
      last: new GivenInput(backend, i32(this.batch)),
    };
    // Lengths of prompts vary without end; only single tokens are worth keeping.
    if (length !== 1) for (const [other, inputs] of this.#inputs) if (other !== 1) this.#forget(other, inputs);
    this.#inputs.set(length, inputs);
    return inputs;
  }

  #forget(length: number, inputs: Inputs): void {
    for (const input of Object.values(inputs)) input.dispose();
    this.#inputs.delete(length);
  }

  /** Frees caches and programs; the backend stays open. */
  async close(): Promise<void> {
    await this.#sampler?.close();
    for (const executable of this.#executables.values()) executable.close();
    for (const tensor of Object.values(this.#caches)) tensor.dispose();
    for (const [length, inputs] of this.#inputs) this.#forget(length, inputs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function checkSpan(spans: TypedArray, rows: readonly number[]): void {
  const span = Math.max(...rows.map((row) => spans[row] ?? 0));
  if (span > 2 * sdpaClamp) {
    throw new DataError(
      `decoder: decay has reached ${span.toFixed(1)}, and form "sdpa" clamps above ${2 * sdpaClamp}: from here on cached decoding differs from the full pass. Use form "exact", or allow the clamp`,
    );
  }
}
