// Cached decoding of a language model on any backend: writes tokens into caches and gives the logits after them.

import type { Backend, DeviceTensor, Executable } from "../backend.ts";
import type { TypedArray } from "../dtype.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { GraphInputs, GraphOutputs } from "../graph/graph.ts";
import { simplify } from "../graph/passes.ts";
import { sdpaClamp } from "../ops/sisa-attention.ts";
import { i32 } from "../spec.ts";
import type { LanguageModel } from "./language-model.ts";

export interface DecoderOptions {
  readonly model: LanguageModel;
  readonly parameters: { readonly [name: string]: Float32Array };
  readonly backend: Backend;
  /** Tokens that a row can hold. Default: the model's maximum length. */
  readonly capacity?: number;
  /** Rows. Default 1. */
  readonly batch?: number;
  /**
   * Go on where form `sdpa` would clamp, although cached decoding then differs from the full pass. Default false.
   */
  readonly allowClamp?: boolean;
}

/** Tokens per row of one run on backends that need a fixed count; longer inputs are cut, shorter ones padded. */
const chunkLength = 64;

/** A model with its caches on a backend. Close it when done. */
export class Decoder implements AsyncDisposable {
  readonly capacity: number;
  readonly batch: number;
  readonly #options: DecoderOptions;
  readonly #executables: ReadonlyMap<number, Executable<GraphInputs, GraphOutputs>>;
  readonly #caches: { readonly [name: string]: DeviceTensor };
  readonly #inputs = new Map<
    number,
    { readonly ids: DeviceTensor; readonly start: DeviceTensor; readonly last: DeviceTensor }
  >();

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
  }

  /** @throws ConfigError where the capacity is above the model's maximum length */
  static async create(options: DecoderOptions): Promise<Decoder> {
    const { model, backend, parameters, batch = 1, capacity = model.config.maximumLength } = options;
    if (capacity > model.config.maximumLength || capacity < 1) {
      throw new ConfigError(
        `decoder: capacity must be 1 to the model's maximumLength ${model.config.maximumLength}, got ${capacity}`,
      );
    }
    const graph = simplify(model.decodeGraph().bind({ B: batch, C: capacity }));
    const names = Object.keys(model.cacheSpecs());
    const compile = (bound: typeof graph) =>
      backend.compile(bound, { state: Object.fromEntries(names.map((name) => [name, name])), constants: parameters });
    const executables = new Map<number, Executable<GraphInputs, GraphOutputs>>();
    if (backend.limits.symbolicDims) executables.set(0, await compile(graph));
    else {
      for (const length of new Set([1, Math.min(chunkLength, capacity)])) {
        executables.set(length, await compile(graph.bind({ T: length })));
      }
    }
    const specs = Object.entries(model.cacheSpecs(batch, capacity));
    const caches = Object.fromEntries(specs.map(([name, spec]) => [name, backend.tensor(spec)]));
    return new Decoder(options, executables, caches, capacity, batch);
  }

  /**
   * Appends tokens to every row and returns the logits after the last one of each row.
   *
   * @param rows  one list of tokens per row, none empty
   * @param start how many tokens each row keeps from before; may go back to resume any prefix
   * @returns logits, [batch, V] row major
   * @throws DataError where a row is empty or would not fit
   */
  async append(rows: readonly (readonly number[])[], start: readonly number[]): Promise<Float32Array> {
    if (rows.length !== this.batch || start.length !== this.batch) {
      throw new DataError(
        `decoder: expected ${this.batch} rows, got ${rows.length} of tokens and ${start.length} starts`,
      );
    }
    const longest = Math.max(...rows.map((row) => row.length));
    const { vocabularySize } = this.#options.model.config;
    rows.forEach((row, index) => {
      const end = (start[index] ?? 0) + row.length;
      if (row.length === 0) throw new DataError(`decoder: row ${index} has no tokens`);
      if (end > this.capacity)
        throw new DataError(`decoder: row ${index} needs ${end} tokens, its cache holds ${this.capacity}`);
      const wrong = row.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabularySize);
      if (wrong !== undefined)
        throw new DataError(`decoder: expected token ids from 0 to ${vocabularySize - 1}, got ${wrong}`);
    });

    const result = new Float32Array(this.batch * vocabularySize);
    for (let offset = 0; offset < longest; ) {
      const length = this.#runLength(longest - offset, Math.max(...start) + offset);
      const taken = await this.#run(rows, start, offset, length, result);
      offset += taken;
    }
    return result;
  }

  /** How many tokens the next run takes, padding included. */
  #runLength(left: number, position: number): number {
    if (this.#executables.has(0)) return left;
    const longest = Math.max(...this.#executables.keys());
    // Padding is written too, so a padded run must fit in the cache.
    return left > 1 && position + longest <= this.capacity ? longest : 1;
  }

  async #run(
    rows: readonly (readonly number[])[],
    start: readonly number[],
    offset: number,
    length: number,
    result: Float32Array,
  ): Promise<number> {
    const { backend, model, allowClamp } = this.#options;
    const inputs = this.#inputsFor(length);
    const ids = new Int32Array(this.batch * length);
    const starts = new Int32Array(this.batch);
    const last = new Int32Array(this.batch);
    rows.forEach((row, index) => {
      // A row that has ended writes its padding after its tokens, where the next append overwrites it.
      const first = Math.min(offset, row.length - 1);
      ids.set(row.slice(first, first + length), index * length);
      starts[index] = Math.min((start[index] ?? 0) + first, this.capacity - length);
      last[index] = Math.min(row.length - first, length) - 1;
    });
    backend.write(inputs.ids, ids);
    backend.write(inputs.start, starts);
    backend.write(inputs.last, last);
    const executable = this.#executables.get(length) ?? this.#executables.get(0);
    const outputs = executable?.run({ ...this.#caches, ...inputs });
    if (outputs?.decaySpan && !allowClamp) checkSpan(await outputs.decaySpan.read());
    const logits = await outputs?.logits?.read();
    const { vocabularySize } = model.config;
    rows.forEach((row, index) => {
      const ends = offset < row.length && offset + length >= row.length;
      if (ends && logits) {
        const own = logits.subarray(index * vocabularySize, (index + 1) * vocabularySize);
        result.set(own, index * vocabularySize);
      }
    });
    return length;
  }

  #inputsFor(length: number) {
    const known = this.#inputs.get(length);
    if (known) return known;
    const { backend } = this.#options;
    const inputs = {
      ids: backend.tensor(i32(this.batch, length)),
      start: backend.tensor(i32(this.batch)),
      last: backend.tensor(i32(this.batch)),
    };
    // Lengths of prompts vary without end; only single tokens are worth keeping.
    if (length !== 1) for (const [other, tensors] of this.#inputs) if (other !== 1) this.#forget(other, tensors);
    this.#inputs.set(length, inputs);
    return inputs;
  }

  #forget(length: number, tensors: { readonly [name: string]: DeviceTensor }): void {
    for (const tensor of Object.values(tensors)) tensor.dispose();
    this.#inputs.delete(length);
  }

  async close(): Promise<void> {
    for (const executable of this.#executables.values()) executable.close();
    for (const tensor of Object.values(this.#caches)) tensor.dispose();
    for (const [length, tensors] of this.#inputs) this.#forget(length, tensors);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function checkSpan(spans: TypedArray): void {
  const span = Math.max(...spans);
  if (span > 2 * sdpaClamp) {
    throw new DataError(
      `decoder: decay has reached ${span.toFixed(1)}, and form "sdpa" clamps above ${2 * sdpaClamp}: from here on cached decoding differs from the full pass. Use form "exact", or allow the clamp`,
    );
  }
}
