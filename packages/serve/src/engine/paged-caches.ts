// Caches in pages of one pool that all slots share. A slot has a list of pages; beginnings that are equal are the same
// pages, full ones as they are, the last one copied. A sequence has all the pages that it may need from its start on, so
// that no step can run out of them.

import {
  ConfigError,
  cacheWrite,
  type DeviceTensor,
  type Graph,
  gather,
  i32,
  inPrecision,
  type StepGraph,
  type Tensor,
  type TensorSpec,
  trace,
} from "@sisa/core";
import type { Beginning, Begun, Caches, CachesOptions, Lane, Numbers } from "./caches.ts";
import { type Program, Programs } from "./programs.ts";

/** Rows of a page: as many keys as kernels read at once. */
export const pageSize = 64;

/** No slot: what such a lane writes goes to a page that nobody reads. */
const noSlot = -1;

interface PageCopy {
  readonly source: Tensor<"int">;
  readonly target: Tensor<"int">;
  readonly start: Tensor<"int">;
}

export class PagedCaches implements Caches {
  readonly chunkLength: number;
  readonly #options: CachesOptions;
  readonly #graph: StepGraph;
  readonly #specs: { readonly [name: string]: TensorSpec };
  #pools: { readonly [name: string]: DeviceTensor };
  /** Pages of each slot, in order. */
  readonly #pages: number[][];
  /** How many slots have each page. */
  readonly #holders: Int32Array;
  /** Pages that a row of the table names. */
  readonly #tableWidth: number;
  readonly #programs = new Programs();

  /** @throws ConfigError where not even one sequence fits */
  constructor(options: CachesOptions) {
    const { model, backend, slots, contextLength, cacheTokens = slots * pagesFor(contextLength) * pageSize } = options;
    if (!Number.isInteger(cacheTokens) || cacheTokens < contextLength) {
      throw new ConfigError(
        `serve: cacheTokens must be a whole number >= the context length ${contextLength}, got ${cacheTokens}`,
      );
    }
    this.#options = options;
    // The first pages are for what nobody reads, one for each lane.
    const count = slots + pagesFor(cacheTokens);
    this.#graph = inPrecision(model.stepGraph({ pageSize }), options.precision ?? "float32");
    const bound = this.#graph.bind({ B: 1, T: 1, R: 1, M: 1, N: count }).inputs;
    this.#specs = Object.fromEntries(Object.keys(model.cacheSpecs()).map((name) => [name, bound[name] as TensorSpec]));
    this.#pools = this.#emptyPools();
    this.#pages = Array.from({ length: slots }, () => []);
    this.#holders = new Int32Array(count).fill(1, 0, slots);
    this.chunkLength = Math.min(backend.limits.chunkLength, pagesFor(contextLength) * pageSize);
    // A chunk may reach beyond the last token.
    this.#tableWidth = pagesFor(contextLength + this.chunkLength);
  }

  #emptyPools() {
    const { backend } = this.#options;
    return Object.fromEntries(Object.entries(this.#specs).map(([name, spec]) => [name, backend.tensor(spec)]));
  }

  async begin(slot: number, from: Beginning, most: number, idle: readonly number[]): Promise<Begun | undefined> {
    const others = idle.filter((other) => other !== slot);
    for (const beginning of [from, { slot, count: 0 }]) {
      const { kept, copied } = this.#shareOf(slot, beginning);
      const held = new Set([...kept, ...copied, ...this.#pagesOutside([slot, ...others])]);
      const needed = pagesFor(most) - kept.length;
      const possible = this.#holders.length - this.#options.slots - held.size;
      if (needed <= possible) return await this.#give(slot, beginning.count, { kept, copied, needed, others });
    }
    return undefined;
  }

  /** Pages of a beginning that a slot can have as they are, and the one of which it needs a copy. */
  #shareOf(slot: number, { slot: from, count }: Beginning): { readonly kept: number[]; readonly copied: number[] } {
    const pages = this.#pages[from] ?? [];
    const last = pages[pagesFor(count) - 1] ?? 0;
    const isOwn = count % pageSize === 0 || (from === slot && this.#holders[last] === 1);
    const kept = pages.slice(0, isOwn ? pagesFor(count) : pagesFor(count) - 1);
    return { kept, copied: isOwn ? [] : [last] };
  }

  /** Pages that are not free even where these slots are emptied. */
  #pagesOutside(slots: readonly number[]): number[] {
    return this.#pages.filter((_, slot) => !slots.includes(slot)).flat();
  }

  async #give(
    slot: number,
    count: number,
    share: {
      readonly kept: readonly number[];
      readonly copied: readonly number[];
      readonly needed: number;
      readonly others: readonly number[];
    },
  ): Promise<Begun> {
    const { kept, copied, needed, others } = share;
    const held = [...kept, ...copied];
    this.#hold(held);
    this.#drop(this.#pages[slot] ?? []);
    this.#pages[slot] = [];
    const emptied: number[] = [];
    for (const other of others) {
      if (this.#free().length >= needed) break;
      if (this.#pages[other]?.length === 0) continue;
      this.#drop(this.#pages[other] ?? []);
      this.#pages[other] = [];
      emptied.push(other);
    }
    const fresh = this.#free().slice(0, needed);
    this.#hold(fresh);
    this.#pages[slot] = [...kept, ...fresh];
    const [source, target] = [copied[0], fresh[0]];
    try {
      if (source !== undefined && target !== undefined) await this.#copyPage(source, target);
    } finally {
      this.#drop(copied);
    }
    return { count, emptied };
  }

  #hold(pages: readonly number[]): void {
    for (const page of pages) this.#holders[page] = (this.#holders[page] ?? 0) + 1;
  }

  #drop(pages: readonly number[]): void {
    for (const page of pages) this.#holders[page] = (this.#holders[page] ?? 0) - 1;
  }

  #free(): number[] {
    return [...this.#holders.keys()].filter((page) => this.#holders[page] === 0);
  }

  async #copyPage(source: number, target: number): Promise<void> {
    const { backend } = this.#options;
    const copier = await this.#programs.get("copy", () => this.#compileCopier());
    const inputs = {
      source: backend.tensor(i32(1), Int32Array.of(source)),
      target: backend.tensor(i32(1, 1), Int32Array.of(target)),
      start: backend.tensor(i32(1)),
    };
    copier.run({ ...inputs, ...this.#pools });
    for (const tensor of Object.values(inputs)) tensor.dispose();
  }

  #compileCopier(): Promise<Program> {
    const names = Object.keys(this.#specs);
    const inputs: { readonly [name: string]: TensorSpec } = {
      source: i32(1),
      target: i32(1, 1),
      start: i32(1),
      ...this.#specs,
    };
    const graph = trace(inputs, (tensors) => {
      const { source, target, start } = tensors as unknown as PageCopy;
      const copied = (pool: Tensor) => cacheWrite(pool, gather(pool, source), start, target);
      return Object.fromEntries(names.map((name) => [name, copied(tensors[name] as Tensor)]));
    }) as Graph;
    return this.#options.backend.compile(graph, { state: Object.fromEntries(names.map((name) => [name, name])) });
  }

  release(slot: number, count: number): void {
    const pages = this.#pages[slot] ?? [];
    this.#drop(pages.slice(pagesFor(count)));
    this.#pages[slot] = pages.slice(0, pagesFor(count));
  }

  runLength(count: number): number {
    return count === 1 ? 1 : this.chunkLength;
  }

  /** What comes before is there, perhaps for others too; what comes after the last token is overwritten later. */
  startOf({ tokens, count }: Lane): number {
    return tokens.length - count;
  }

  fillers(lanes: readonly Lane[], width: number): readonly Lane[] {
    return Array.from({ length: width - lanes.length }, () => ({ slot: noSlot, tokens: [0], count: 1 }));
  }

  step(width: number, length: number, places: number): Promise<Program> {
    return this.#programs.get(`${width} ${length} ${places}`, () => {
      const { backend, parameters } = this.#options;
      const sizes = { B: width, T: length, R: places, N: this.#holders.length, M: this.#tableWidth };
      return backend.compile(this.#graph.bind(sizes) as unknown as Graph, {
        state: Object.fromEntries(Object.keys(this.#specs).map((name) => [name, name])),
        constants: parameters,
      });
    });
  }

  memoryOf() {
    return this.#pools;
  }

  placesOf(lanes: readonly Lane[]): Numbers {
    const data = new Int32Array(lanes.length * this.#tableWidth);
    lanes.forEach(({ slot }, lane) => {
      const row = data.subarray(lane * this.#tableWidth, (lane + 1) * this.#tableWidth);
      row.fill(lane);
      row.set(this.#pages[slot] ?? []);
    });
    return { pages: { spec: i32(lanes.length, this.#tableWidth), data } };
  }

  renew(): readonly number[] {
    for (const tensor of Object.values(this.#pools)) tensor.dispose();
    this.#pools = this.#emptyPools();
    return [...this.#pages.keys()];
  }

  async close(): Promise<void> {
    await this.#programs.close();
    for (const tensor of Object.values(this.#pools)) tensor.dispose();
  }
}

function pagesFor(tokens: number): number {
  return Math.ceil(tokens / pageSize);
}
