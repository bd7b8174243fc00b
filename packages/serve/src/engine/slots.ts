// Places for sequences on a backend: each slot has the caches of one sequence, and knows the tokens that they hold.

import {
  type Backend,
  ConfigError,
  cacheWrite,
  checkToken,
  type DeviceTensor,
  type Executable,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  i32,
  inPrecision,
  type LanguageModel,
  type Precision,
  Sampler,
  type StepGraph,
  slice,
  type Tensor,
  type TensorSpec,
  type TokenChoice,
  type TypedArray,
  trace,
} from "@sisa/core";
import { laneCache, laneGraph } from "./lane-graph.ts";

export interface SlotsOptions {
  readonly model: LanguageModel;
  readonly parameters: { readonly [name: string]: Float32Array };
  readonly backend: Backend;
  /** Widths of weights, caches and what is computed, where the backend has them. Default "float32". */
  readonly precision?: Precision;
  /** Sequences that are in memory at once. */
  readonly slots: number;
  /** Tokens of one sequence, prompt included. */
  readonly contextLength: number;
}

/** What one sequence does in a run: the last `count` of its tokens are computed, those before them are in its slot. */
export interface Lane {
  readonly slot: number;
  readonly tokens: readonly number[];
  readonly count: number;
}

export interface RunResult {
  /** [R,V]: of each lane's last token, or of all computed tokens of the only lane. */
  readonly logits: Float32Array;
  /** By how much the decay of each lane has fallen, where the model's form is only exact up to a limit. */
  readonly decaySpans?: Float32Array;
}

export interface NextResult {
  /** Of each lane: the token that was chosen to follow, or logits [V] to choose it by. */
  readonly next: readonly (number | Float32Array)[];
  /** As in RunResult. */
  readonly decaySpans?: Float32Array;
}

/** Tokens in one run on backends that need a fixed count; and the unit of a cache's size. */
const fixedLength = 64;

/**
 * Runs of several tokens are a multiple of this long. Vectors of numbers are computed four at a time and what is left
 * over in another way, by threads that cut them into parts: of lengths like this nothing is left over.
 */
const unit = 16;

type Caches = { readonly [name: string]: DeviceTensor };

export class Slots implements AsyncDisposable {
  readonly count: number;
  readonly contextLength: number;
  readonly #options: SlotsOptions;
  readonly #capacity: number;
  /** A step of all sequences together. */
  readonly #graph: StepGraph;
  /**
   * Tokens of a sequence that a run computes at least. Where that is more than are wanted, those before them are computed
   * again, with the same result.
   */
  readonly #shortest: number;
  readonly #caches: Caches[];
  /** Tokens whose rows each slot holds. */
  readonly #contents: number[][];
  readonly #steps = new Map<string, Promise<Executable<GraphInputs, GraphOutputs>>>();
  #copier: Promise<Executable<GraphInputs, GraphOutputs>> | undefined;
  /** By the rows of logits that they choose by. */
  readonly #samplers = new Map<number, Promise<Sampler>>();

  private constructor(options: SlotsOptions, capacity: number) {
    this.#options = options;
    this.#capacity = capacity;
    this.#graph = inPrecision(options.model.stepGraph(), options.precision ?? "float32");
    this.#shortest = shortestRun(options.model);
    this.#caches = Array.from({ length: options.slots }, () => this.#emptyCaches());
    this.#contents = this.#caches.map(() => []);
    this.count = options.slots;
    this.contextLength = options.contextLength;
  }

  /** @throws ConfigError for sizes that cannot be, and for models whose caches cannot be resumed at any token */
  static async create(options: SlotsOptions): Promise<Slots> {
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
    // Whole blocks need no filling up; what looks at a cache has a row more than there are tokens.
    const capacity = Math.ceil((contextLength + 1) / fixedLength) * fixedLength;
    const created = new Slots(options, capacity);
    if (backend.limits.symbolicDims) {
      await created.#step(1, 0, 0);
      if (slots > 1) await created.#step(slots, 0, 0);
    }
    return created;
  }

  #emptyCaches(): Caches {
    const { backend } = this.#options;
    const specs = Object.entries(this.#cacheSpecs());
    return Object.fromEntries(specs.map(([name, spec]) => [name, backend.tensor(spec)]));
  }

  /** Of one sequence, as the step keeps them. */
  #cacheSpecs(): { readonly [name: string]: TensorSpec } {
    const specs = Object.entries(this.#options.model.cacheSpecs(1, this.#capacity));
    return Object.fromEntries(
      specs.map(([name, { shape }]) => [name, { dtype: this.#graph.inputs[name]?.dtype ?? "float32", shape }]),
    );
  }

  /** Where a run has failed, what it was to write is lost, and stays so: caches are made anew. */
  #renew(slot: number): void {
    for (const tensor of Object.values(this.#caches[slot] ?? {})) tensor.dispose();
    this.#contents[slot] = [];
    this.#caches[slot] = this.#emptyCaches();
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

  /** Puts the first tokens of one slot into another. */
  async copy(from: number, to: number, count: number): Promise<void> {
    const { backend } = this.#options;
    const source = this.#caches[from] ?? {};
    const target = this.#caches[to] ?? {};
    this.#copier ??= this.#compileCopier();
    const copier = await this.#copier;
    const rows = backend.tensor(i32(backend.limits.symbolicDims ? count : this.#capacity));
    const start = backend.tensor(i32(1));
    copier.run({ rows, start, ...prefixed("from.", source), ...prefixed("to.", target) });
    rows.dispose();
    start.dispose();
    this.#contents[to] = (this.#contents[from] ?? []).slice(0, count);
  }

  /** Computes tokens of one sequence, or one token of each of several. */
  async run(lanes: readonly Lane[], logitsOf: "last" | "all" = "last"): Promise<RunResult> {
    const { value, rows, ...rest } = await this.#run(lanes, logitsOf, (logits) => logits.read());
    return { logits: this.#rows(value, 0, rows), ...rest };
  }

  /**
   * Computes as `run` does, and chooses the tokens that follow where the logits are: from a device only those are read,
   * and the logits where a lane needs them.
   *
   * @param choices how, for each lane; undefined for one that needs its logits. Backends in the host's memory give all
   *   their logits
   * @throws DataError where logits allow no choice
   */
  async next(lanes: readonly Lane[], choices: readonly (TokenChoice | undefined)[]): Promise<NextResult> {
    const needed = this.#options.backend.limits.hostMemory || choices.includes(undefined);
    const { value, rows, ...rest } = await this.#run(lanes, "last", async (logits, asked) => {
      const chosen = this.#options.backend.limits.hostMemory ? [] : this.#choose(logits, choices, asked);
      return await Promise.all([chosen, needed ? logits.read() : undefined]);
    });
    const [tokens, logits] = value;
    const next = lanes.map((_, lane) =>
      logits && (tokens.length === 0 || !choices[lane])
        ? this.#rows(logits, lane, lane + 1)
        : checkToken(tokens[lane] ?? -1),
    );
    return { next, ...rest };
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

  /** @param take enqueues what is wanted of the logits, of which there are so many rows */
  async #run<T>(
    lanes: readonly Lane[],
    logitsOf: "last" | "all",
    take: (logits: DeviceTensor, asked: number) => Promise<T>,
  ): Promise<{ readonly value: T; readonly rows: number; readonly decaySpans?: Float32Array }> {
    const { backend } = this.#options;
    const width = lanes.length === 1 ? 1 : this.count;
    const length = this.#runLength(Math.max(...lanes.map(({ count }) => count)));
    const all = [...lanes, ...this.#fillers(width, lanes)];

    const starts = all.map(({ tokens }) => Math.max(0, tokens.length - length));
    const ids = new Int32Array(width * length);
    all.forEach(({ tokens }, lane) => {
      ids.set(tokens.slice(starts[lane]), lane * length);
    });
    const places = lanes.flatMap(({ tokens, count }, lane) => {
      const last = lane * length + tokens.length - (starts[lane] ?? 0) - 1;
      return logitsOf === "last" ? [last] : Array.from({ length: count }, (_, index) => last - count + 1 + index);
    });
    const used = places.length;
    const asked = backend.limits.symbolicDims ? used : logitsOf === "all" ? length : width;
    while (places.length < asked) places.push(places[0] ?? 0);

    const inputs = {
      ids: backend.tensor(i32(width, length), ids),
      start: backend.tensor(i32(width), Int32Array.from(starts)),
      places: backend.tensor(i32(asked), Int32Array.from(places)),
    };
    try {
      const step = await this.#step(width, length, asked);
      const caches = all.flatMap(({ slot }, lane) =>
        Object.entries(this.#caches[slot] ?? {}).map(([name, tensor]) => [laneCache(lane, name), tensor] as const),
      );
      // Until the run has ended, what is written is not known.
      for (const { slot, tokens, count } of lanes) this.#contents[slot] = tokens.slice(0, tokens.length - count);
      const outputs = step.run({ ...inputs, ...Object.fromEntries(caches) });
      if (outputs.logits === undefined) throw new GraphError("slots: the step graph gave no logits");
      const spans = outputs.decaySpan?.read();
      const value = await take(outputs.logits, asked);
      for (const { slot, tokens } of lanes) this.#contents[slot] = tokens.slice();
      return { value, rows: used, ...(spans === undefined ? {} : { decaySpans: floats(await spans) }) };
    } catch (error) {
      for (const { slot } of all) this.#renew(slot);
      throw error;
    } finally {
      for (const tensor of Object.values(inputs)) tensor.dispose();
    }
  }

  #runLength(count: number): number {
    if (count <= this.#shortest) return this.#shortest;
    return this.#options.backend.limits.symbolicDims ? Math.ceil(count / unit) * unit : fixedLength;
  }

  /** Lanes that nobody asked for compute the first tokens of other slots again, which leaves these as they are. */
  #fillers(width: number, lanes: readonly Lane[]): Lane[] {
    const used = new Set(lanes.map(({ slot }) => slot));
    return Array.from({ length: this.count }, (_, slot) => slot)
      .filter((slot) => !used.has(slot))
      .slice(0, width - lanes.length)
      .map((slot) => {
        const content = this.#contents[slot] ?? [];
        const tokens = Array.from({ length: this.#shortest }, (_, index) => content[index] ?? 0);
        return { slot, tokens, count: this.#shortest };
      });
  }

  /** The program of a step. One serves all lengths where sizes may stay open. */
  #step(width: number, length: number, places: number): Promise<Executable<GraphInputs, GraphOutputs>> {
    const { model, backend, parameters } = this.#options;
    const key = backend.limits.symbolicDims ? String(width) : `${width} ${length} ${places}`;
    const known = this.#steps.get(key);
    if (known) return known;
    const names = Object.keys(model.cacheSpecs());
    const sizes = { lanes: width, capacity: this.#capacity };
    const open = laneGraph(this.#graph, names, sizes, backend.limits.symbolicDims);
    const graph: Graph = backend.limits.symbolicDims ? open : open.bind({ T: length, R: places });
    const states = Array.from({ length: width }, (_, lane) => names.map((name) => laneCache(lane, name))).flat();
    const compiled = backend.compile(graph, {
      state: Object.fromEntries(states.map((name) => [name, name])),
      constants: parameters,
    });
    this.#steps.set(key, compiled);
    return compiled;
  }

  #compileCopier(): Promise<Executable<GraphInputs, GraphOutputs>> {
    const { backend } = this.#options;
    const specs = this.#cacheSpecs();
    const inputs: { readonly [name: string]: TensorSpec } = {
      // Only its length counts.
      rows: i32("P"),
      start: i32(1),
      ...prefixed("from.", specs),
      ...prefixed("to.", specs),
    };
    const open = trace(inputs, (tensors) => {
      const end = tensors.rows?.shape[0] ?? 0;
      const names = Object.keys(specs);
      return Object.fromEntries(
        names.map((name) => {
          const kept = slice(tensors[`from.${name}`] as Tensor, { axis: 1, end });
          return [
            `to.${name}`,
            cacheWrite(tensors[`to.${name}`] as Tensor, kept, tensors.start as unknown as Tensor<"int">),
          ];
        }),
      );
    }) as Graph;
    const graph = backend.limits.symbolicDims ? open : open.bind({ P: this.#capacity });
    return backend.compile(graph, {
      state: Object.fromEntries(Object.keys(specs).map((name) => [`to.${name}`, `to.${name}`])),
    });
  }

  async close(): Promise<void> {
    for (const step of [...this.#steps.values(), ...(this.#copier ? [this.#copier] : [])]) (await step).close();
    for (const sampler of this.#samplers.values()) await (await sampler).close();
    for (const caches of this.#caches) for (const tensor of Object.values(caches)) tensor.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Four numbers in every vector: those with one number for each head and token are the shortest. */
function shortestRun({ config: { heads } }: LanguageModel): number {
  return heads % 4 === 0 ? 1 : heads % 2 === 0 ? 2 : 4;
}

function prefixed<T>(prefix: string, entries: { readonly [name: string]: T }): { [name: string]: T } {
  return Object.fromEntries(Object.entries(entries).map(([name, value]) => [prefix + name, value]));
}

function floats(data: TypedArray): Float32Array {
  return data as Float32Array;
}
