// Cached decoding of a language model on any backend: writes tokens into caches and gives the logits after them.

import type { Backend, DeviceTensor, Executable } from "../backend.ts";
import type { TypedArray } from "../dtype.ts";
import { ConfigError, DataError, GraphError } from "../errors.ts";
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
      // Where each row goes on. One that has ended writes its last token again, and padding after it, which the next
      // append overwrites.
      const first = rows.map((row) => Math.min(offset, row.length - 1));
      const positions = first.map((place, index) => (start[index] ?? 0) + place);
      const length = this.#runLength(longest - offset, this.capacity - Math.max(...positions));
      const logits = await this.#run(
        rows.map((row, index) => row.slice(first[index], (first[index] ?? 0) + length)),
        positions,
        length,
      );
      rows.forEach((row, index) => {
        if (offset >= row.length || offset + length < row.length) return;
        result.set(logits.subarray(index * vocabularySize, (index + 1) * vocabularySize), index * vocabularySize);
      });
      offset += length;
    }
    return result;
  }

  /** How many tokens the next run takes of every row, padding included, which must fit in the cache too. */
  #runLength(left: number, room: number): number {
    if (this.#executables.has(0)) return Math.min(left, room);
    const longest = Math.max(...this.#executables.keys());
    return left > 1 && room >= longest ? longest : 1;
  }

  /** Runs 1 to `length` tokens of each row; returns the logits after the last of each. */
  async #run(rows: readonly (readonly number[])[], positions: readonly number[], length: number): Promise<TypedArray> {
    const { backend, allowClamp } = this.#options;
    const inputs = this.#inputsFor(length);
    const ids = new Int32Array(this.batch * length);
    rows.forEach((row, index) => {
      ids.set(row, index * length);
    });
    backend.write(inputs.ids, ids);
    backend.write(inputs.start, Int32Array.from(positions));
    backend.write(
      inputs.last,
      Int32Array.from(rows, (row) => row.length - 1),
    );
    const executable = this.#executables.get(length) ?? this.#executables.get(0);
    const outputs = executable?.run({ ...this.#caches, ...inputs });
    if (outputs?.logits === undefined) throw new GraphError("decoder: the decode graph gave no logits");
    if (outputs.decaySpan && !allowClamp) checkSpan(await outputs.decaySpan.read());
    return await outputs.logits.read();
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
