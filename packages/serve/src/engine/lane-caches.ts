// Caches of their own for every slot, which are read where they lie: for backends that put nothing together from pages.

import {
  type Backend,
  ConfigError,
  cacheWrite,
  type DeviceTensor,
  type Graph,
  i32,
  inPrecision,
  type LanguageModel,
  type StepGraph,
  slice,
  type Tensor,
  type TensorSpec,
  trace,
} from "@sisa/core";
import type { Beginning, Begun, Caches, CachesOptions, Lane, Numbers } from "./caches.ts";
import { laneCache, laneGraph } from "./lane-graph.ts";
import { type Program, Programs } from "./programs.ts";

/** Rows that a cache has a multiple of. */
const block = 64;

/**
 * Runs of several tokens are a multiple of this long. Vectors of numbers are computed four at a time and what is left
 * over in another way, by threads that cut them into parts: of lengths like this nothing is left over.
 */
const unit = 16;

type Tensors = { readonly [name: string]: DeviceTensor };

export class LaneCaches implements Caches {
  readonly chunkLength: number;
  readonly #options: CachesOptions;
  readonly #backend: Backend;
  readonly #capacity: number;
  /** A step of all sequences together. */
  readonly #graph: StepGraph;
  /**
   * Tokens of a sequence that a run computes at least. Where that is more than are wanted, those before them are computed
   * again, with the same result.
   */
  readonly #shortest: number;
  readonly #caches: Tensors[];
  readonly #programs = new Programs();

  /** @throws ConfigError where memory is not that of all slots */
  constructor(options: CachesOptions) {
    const { model, backend, slots, contextLength, cacheTokens } = options;
    if (cacheTokens !== undefined) {
      throw new ConfigError(
        `serve: on ${backend.name} every slot has memory of its own, so cacheTokens cannot be set; choose slots and contextLength, or a backend with paged caches`,
      );
    }
    this.#options = options;
    this.#backend = backend;
    // Whole blocks need no filling up; what looks at a cache has a row more than there are tokens.
    this.#capacity = Math.ceil((contextLength + 1) / block) * block;
    this.chunkLength = Math.min(backend.limits.chunkLength, this.#capacity);
    this.#graph = inPrecision(model.stepGraph(), options.precision ?? "float32");
    this.#shortest = shortestRun(model);
    this.#caches = Array.from({ length: slots }, () => this.#emptyCaches());
  }

  #emptyCaches(): Tensors {
    const specs = Object.entries(this.#cacheSpecs());
    return Object.fromEntries(specs.map(([name, spec]) => [name, this.#backend.tensor(spec)]));
  }

  /** Of one sequence, as the step keeps them. */
  #cacheSpecs(): { readonly [name: string]: TensorSpec } {
    const specs = Object.entries(this.#options.model.cacheSpecs(1, this.#capacity));
    return Object.fromEntries(
      specs.map(([name, { shape }]) => [name, { dtype: this.#graph.inputs[name]?.dtype ?? "float32", shape }]),
    );
  }

  async begin(slot: number, from: Beginning): Promise<Begun> {
    if (from.slot !== slot && from.count > 0) await this.#copy(from, slot);
    return { count: from.count, emptied: [] };
  }

  async #copy({ slot, count }: Beginning, to: number): Promise<void> {
    const copier = await this.#programs.get("copy", () => this.#compileCopier());
    const rows = this.#backend.tensor(i32(this.#backend.limits.symbolicDims ? count : this.#capacity));
    const start = this.#backend.tensor(i32(1));
    const [source, target] = [this.#caches[slot] ?? {}, this.#caches[to] ?? {}];
    copier.run({ rows, start, ...prefixed("from.", source), ...prefixed("to.", target) });
    rows.dispose();
    start.dispose();
  }

  release(): void {}

  runLength(count: number): number {
    if (count <= this.#shortest) return this.#shortest;
    return this.#backend.limits.symbolicDims ? Math.ceil(count / unit) * unit : this.chunkLength;
  }

  startOf({ tokens }: Lane, length: number): number {
    return Math.max(0, tokens.length - length);
  }

  /** They compute the first tokens of other slots again, which leaves these as they are. */
  fillers(lanes: readonly Lane[], width: number, contents: readonly (readonly number[])[]): readonly Lane[] {
    const used = new Set(lanes.map(({ slot }) => slot));
    return contents
      .map((content, slot) => {
        const tokens = Array.from({ length: this.#shortest }, (_, index) => content[index] ?? 0);
        return { slot, tokens, count: this.#shortest };
      })
      .filter(({ slot }) => !used.has(slot))
      .slice(0, width - lanes.length);
  }

  /** One serves all lengths where sizes may stay open. */
  step(width: number, length: number, places: number): Promise<Program> {
    const { symbolicDims } = this.#backend.limits;
    return this.#programs.get(symbolicDims ? String(width) : `${width} ${length} ${places}`, () => {
      const { model, parameters } = this.#options;
      const names = Object.keys(model.cacheSpecs());
      const open = laneGraph(this.#graph, names, { lanes: width, capacity: this.#capacity }, symbolicDims);
      const graph: Graph = symbolicDims ? open : open.bind({ T: length, R: places });
      const states = Array.from({ length: width }, (_, lane) => names.map((name) => laneCache(lane, name))).flat();
      return this.#backend.compile(graph, {
        state: Object.fromEntries(states.map((name) => [name, name])),
        constants: parameters,
      });
    });
  }

  memoryOf(lanes: readonly Lane[]): Tensors {
    const caches = lanes.flatMap(({ slot }, lane) =>
      Object.entries(this.#caches[slot] ?? {}).map(([name, tensor]) => [laneCache(lane, name), tensor] as const),
    );
    return Object.fromEntries(caches);
  }

  placesOf(): Numbers {
    return {};
  }

  renew(lanes: readonly Lane[]): readonly number[] {
    const slots = lanes.map(({ slot }) => slot);
    for (const slot of slots) {
      for (const tensor of Object.values(this.#caches[slot] ?? {})) tensor.dispose();
      this.#caches[slot] = this.#emptyCaches();
    }
    return slots;
  }

  #compileCopier(): Promise<Program> {
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
    const graph = this.#backend.limits.symbolicDims ? open : open.bind({ P: this.#capacity });
    return this.#backend.compile(graph, {
      state: Object.fromEntries(Object.keys(specs).map((name) => [`to.${name}`, `to.${name}`])),
    });
  }

  async close(): Promise<void> {
    await this.#programs.close();
    for (const caches of this.#caches) for (const tensor of Object.values(caches)) tensor.dispose();
  }
}

/** Four numbers in every vector: those with one number for each head and token are the shortest. */
function shortestRun({ config: { heads } }: LanguageModel): number {
  return heads % 4 === 0 ? 1 : heads % 2 === 0 ? 2 : 4;
}

function prefixed<T>(prefix: string, entries: { readonly [name: string]: T }): { [name: string]: T } {
  return Object.fromEntries(Object.entries(entries).map(([name, value]) => [prefix + name, value]));
}
