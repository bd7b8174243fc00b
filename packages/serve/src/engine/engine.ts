// The engine: takes requests, keeps them in slots, and computes a token of each, step by step, until they end.
//
//   request -> admission -> waiting -> slot: prompt, in chunks -> slot: one token a step, all slots together -> end
//
// Every step begins anew with whoever is there: sequences join and leave between steps, and a chunk of one prompt comes
// between two steps of the others. A slot keeps its tokens when its sequence has ended, and whoever comes next with the
// same beginning goes on from there, at any token. A sequence takes a slot when its prompt's turn comes, and there is memory
// for all that it may need; until then it waits, and those behind it do.

import { type Backend, DataError, type LanguageModel, type Precision, sdpaClamp } from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import type { Lane } from "./caches.ts";
import { Generation } from "./generation.ts";
import {
  checkRequest,
  type GenerationEvent,
  type GenerationRequest,
  QueueFullError,
  ShuttingDownError,
} from "./request.ts";
import { scoreOf, type TokenScore } from "./scores.ts";
import { Slots } from "./slots.ts";

/** A model on a backend, and how many sequences it serves at once. */
export interface EngineOptions {
  /** Refused where it has recurrent layers or meta tokens. */
  readonly model: LanguageModel;
  /** By the model's names, row major. */
  readonly parameters: { readonly [name: string]: Float32Array };
  /** For texts of answers, and for stops. */
  readonly tokenizer: Tokenizer;
  /** Where the model runs. It is not closed. */
  readonly backend: Backend;
  /** Widths of weights, caches and what is computed, where the backend has them. Default "float32". */
  readonly precision?: Precision;
  /** Sequences that are computed at once. Default 8. */
  readonly slots?: number;
  /** Sequences that may wait for a slot, or for their reader, beyond those. Default 128. */
  readonly queueLength?: number;
  /** Tokens of a sequence, prompt included. Default: the model's maximum length. */
  readonly contextLength?: number;
  /**
   * Tokens in memory at once, of all sequences together; equal beginnings are there once. Only for backends with paged
   * caches. Default slots * contextLength.
   */
  readonly cacheTokens?: number;
  /** Is told what happens; for metrics. Default: nobody. */
  readonly observer?: EngineObserver;
}

/** Is told what the engine does, between steps; each function may be left out. */
export interface EngineObserver {
  /** A prompt found its slot, with `cachedTokens` of it there already. */
  promptStarted?(promptTokens: number, cachedTokens: number): void;
  /** A run ended; or one of a prompt that nobody waits for was enqueued. */
  stepDone?(step: {
    /** Tokens of prompts that it computed. */
    readonly promptTokens: number;
    /** Tokens of answers that it computed. */
    readonly generatedTokens: number;
  }): void;
  /** Time since the request came, or since the token before. */
  tokenDone?(seconds: number, isFirst: boolean): void;
  /** An answer ended, failed or was cancelled. */
  ended?(generation: Generation, outcome: "stop" | "length" | "cancelled" | "error"): void;
}

/** What the engine is busy with at the moment. */
export interface EngineCounts {
  /** Sequences in slots, and those that wait for one. */
  readonly running: number;
  /** Sequences that wait for a slot. */
  readonly waiting: number;
  /** Places that are taken. */
  readonly admitted: number;
  /** Tokens of the sequences in slots. */
  readonly runningTokens: number;
}

/** Every so many chunks of a prompt one is waited for, so that little is computed for a client that has left. */
const awaitedEvery = 4;

/** What a chunk of a prompt gave; nothing where nobody waited for it. */
interface ChunkResult {
  readonly next?: number | Float32Array | undefined;
  readonly decaySpan?: number | undefined;
}

interface Running {
  readonly generation: Generation;
  readonly slot: number;
  /** Tokens of the prompt that were in a slot already. */
  readonly cachedTokens: number;
  /** Tokens of the prompt that are there. */
  computed: number;
  readonly promptScores: TokenScore[];
}

/** Continuous batching over any backend: sequences join and leave between steps. Close it when done. */
export class Engine implements AsyncDisposable {
  /** As given. */
  readonly tokenizer: Tokenizer;
  /** Sequences that are computed at once. */
  readonly slotCount: number;
  /** Tokens of a sequence at most, prompt included. */
  readonly contextLength: number;
  /** Rows of logits; may exceed the tokenizer's size by padding. */
  readonly vocabularySize: number;
  readonly #slots: Slots;
  readonly #observer: EngineObserver;
  readonly #mostAdmitted: number;
  #waiting: Generation[] = [];
  #running: Running[] = [];
  /** When each slot was last used, in steps. */
  readonly #lastUse: number[];
  #steps = 0;
  #admitted = 0;
  #draining = false;
  #closed = false;
  #healthy = true;
  #wake: (() => void) | undefined;
  #idle: (() => void)[] = [];
  readonly #loop: Promise<void>;

  private constructor(options: EngineOptions, slots: Slots) {
    this.tokenizer = options.tokenizer;
    this.slotCount = slots.count;
    this.contextLength = slots.contextLength;
    this.vocabularySize = options.model.config.vocabularySize;
    this.#slots = slots;
    this.#observer = options.observer ?? {};
    this.#mostAdmitted = slots.count + (options.queueLength ?? 128);
    this.#lastUse = new Array<number>(slots.count).fill(0);
    this.#loop = this.#work();
  }

  /**
   * Compiles the model and allocates the caches of all slots.
   * @throws ConfigError for slots or a context length that cannot be, and for a model with recurrent layers or meta
   *   tokens
   */
  static async create(options: EngineOptions): Promise<Engine> {
    const { slots = 8, contextLength = options.model.config.maximumLength } = options;
    return new Engine(options, await Slots.create({ ...options, slots, contextLength }));
  }

  /** How many sequences one request may ask for. */
  get mostAdmitted(): number {
    return this.#mostAdmitted;
  }

  /** False while no requests are taken, or where the last run failed. */
  get ready(): boolean {
    return !this.#draining && this.#healthy;
  }

  /** False where the last run failed: until one succeeds, or for good where the device is lost. */
  get healthy(): boolean {
    return this.#healthy;
  }

  /** What it is busy with now. */
  get counts(): EngineCounts {
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      admitted: this.#admitted,
      runningTokens: this.#running.reduce((sum, { generation }) => sum + generation.tokens.length, 0),
    };
  }

  /**
   * Makes room for sequences before any work is done for them. Room is taken until it is given back.
   * @param count how many; default 1
   * @throws QueueFullError where there is no room for all of them; ShuttingDownError once it drains or is closed
   */
  admit(count = 1): Admission {
    if (this.#draining) throw new ShuttingDownError("the server is shutting down");
    if (this.#admitted + count > this.#mostAdmitted) {
      throw new QueueFullError(
        `the queue is full: ${this.#admitted} of ${this.#mostAdmitted} places are taken, ${count} were asked for`,
      );
    }
    this.#admitted += count;
    return new Admission(
      (request) => this.#submit(request),
      () => {
        this.#admitted -= count;
        this.#settle();
      },
    );
  }

  /**
   * An answer to one request, from the next step on in which a slot is free.
   * @throws QueueFullError where there is no room; ShuttingDownError once it drains, or is closed before the end;
   *   ConfigError, DataError, ContextLengthError for impossible requests; DataError where form `sdpa` would clamp;
   *   DeviceError where a run fails
   */
  async *generate(request: GenerationRequest): AsyncGenerator<GenerationEvent, void, void> {
    using admission = this.admit();
    yield* admission.submit(request);
  }

  #submit(request: GenerationRequest): Generation {
    checkRequest(request, this.vocabularySize, this.contextLength);
    const generation = new Generation(request, this.tokenizer, this.contextLength);
    this.#waiting.push(generation);
    this.#wake?.();
    return generation;
  }

  async #work(): Promise<void> {
    while (!this.#closed) {
      this.#release();
      await this.#place();
      const decoding = this.#running.filter(({ generation }) => generation.generated > 0);
      const prompt = this.#running.find(({ generation }) => generation.generated === 0);
      if (decoding.length === 0 && prompt === undefined) {
        // What could not begin has failed, and those behind it have their turn.
        if (this.#waiting.length > 0) continue;
        this.#settle();
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
        continue;
      }
      if (decoding.length > 0) await this.#attempt(decoding, () => this.#decode(decoding));
      if (prompt !== undefined && !prompt.generation.isOver) {
        await this.#attempt([prompt], () => this.#computePrompt(prompt));
      }
      this.#steps += 1;
      await pause();
    }
    this.#release();
  }

  /**
   * A run that fails ends the answers in it, and those whose memory is lost with it, not the engine.
   * @param run tells whether its end was waited for, and so that it has succeeded
   */
  async #attempt(sequences: readonly Running[], run: () => Promise<boolean>): Promise<void> {
    try {
      this.#healthy = (await run()) || this.#healthy;
    } catch (error) {
      this.#healthy = false;
      const lost = this.#running.filter(({ slot, computed }) => this.#slots.length(slot) < computed);
      for (const { generation } of [...sequences, ...lost]) generation.fail(error);
    }
  }

  /** Takes what has ended, or what nobody waits for any more, out of slots and queue. */
  #release(): void {
    const leaving = this.#running.filter(({ generation }) => generation.isOver);
    for (const { generation, slot } of leaving) {
      // Where one row is not a number, those before it that were computed with it may not be either: nobody goes on from them.
      if (generation.hasFailed) this.#slots.empty(slot);
      else this.#slots.release(slot);
    }
    const ended = [...leaving.map(({ generation }) => generation), ...this.#waiting.filter(({ isOver }) => isOver)];
    this.#running = this.#running.filter(({ generation }) => !generation.isOver);
    this.#waiting = this.#waiting.filter(({ isOver }) => !isOver);
    for (const generation of ended) {
      // Who reads of an error gives up the rest, which then is cancelled as well.
      const outcome = generation.finish ?? (generation.hasFailed ? "error" : "cancelled");
      this.#observer.ended?.(generation, outcome);
    }
  }

  /** Gives the next request the slot from which the least is lost, once no other prompt is being computed. */
  async #place(): Promise<void> {
    const isBusy = this.#running.some(({ generation }) => generation.generated === 0);
    const [generation] = this.#waiting;
    const busy = new Set(this.#running.map(({ slot }) => slot));
    const idle = this.#lastUse.map((_, slot) => slot).filter((slot) => !busy.has(slot));
    if (isBusy || generation === undefined || idle.length === 0) return;
    const byUse = idle.toSorted((a, b) => (this.#lastUse[a] ?? 0) - (this.#lastUse[b] ?? 0));
    const shared = this.#sharedTokens(generation);
    const slot = this.#leastMissed(byUse, shared);
    const longest = Math.max(...shared);
    const from = { slot: shared[slot] === longest ? slot : shared.indexOf(longest), count: longest };
    try {
      const cachedTokens = await this.#slots.begin(slot, from, generation.mostTokens, byUse);
      if (cachedTokens === undefined) return;
      this.#waiting.shift();
      this.#lastUse[slot] = this.#steps;
      generation.startedMs = performance.now();
      this.#running.push({ generation, slot, cachedTokens, computed: cachedTokens, promptScores: [] });
      this.#observer.promptStarted?.(generation.request.tokens.length, cachedTokens);
    } catch (error) {
      this.#healthy = false;
      generation.fail(error);
    }
  }

  /**
   * The slot from which the least is lost: of those that hold nothing but a beginning of the prompt, the one that holds the
   * most of it; else the first.
   * @param slots  those that were not used for the longest come first
   * @param shared how much of the prompt each slot holds
   */
  #leastMissed(slots: readonly number[], shared: readonly number[]): number {
    const sharedBy = (slot: number) => shared[slot] ?? 0;
    const beginnings = slots.filter((slot) => this.#slots.length(slot) === sharedBy(slot));
    return beginnings.toSorted((a, b) => sharedBy(b) - sharedBy(a))[0] ?? slots[0] ?? 0;
  }

  /** How much of a prompt each slot holds. */
  #sharedTokens({ request: { tokens, promptLogprobs } }: Generation): readonly number[] {
    // Logits after the last token are wanted in any case, and those of all tokens where the prompt is scored.
    const usable = promptLogprobs ? [] : tokens.slice(0, -1);
    return this.#lastUse.map((_, slot) => this.#slots.commonPrefix(slot, usable));
  }

  /** Computes the next chunk of a prompt. @returns whether its end was waited for */
  async #computePrompt(running: Running): Promise<boolean> {
    const { generation, slot, cachedTokens, computed } = running;
    const { tokens } = generation.request;
    const end = Math.min(tokens.length, computed + this.#slots.chunkLength);
    const lane = { slot, tokens: tokens.slice(0, end), count: end - computed };
    const isLast = end === tokens.length;
    const isAwaited = isLast || this.#isChunkAwaited(running);
    let result: ChunkResult = {};
    if (isAwaited) result = await this.#readChunk(running, lane);
    else await this.#slots.append(lane);
    running.computed = end;
    this.#observer.stepDone?.({ promptTokens: lane.count, generatedTokens: isLast ? 1 : 0 });
    if (this.#isClamped(generation, result.decaySpan) || !isLast) return isAwaited;
    generation.promptDone({ cachedTokens, scores: running.promptScores });
    if (!generation.isOver && result.next !== undefined) this.#add(generation, result.next);
    return isAwaited;
  }

  #isChunkAwaited({ generation, cachedTokens, computed }: Running): boolean {
    const { chunkLength, runsAhead } = this.#slots;
    const chunk = Math.floor((computed - cachedTokens) / chunkLength);
    return generation.request.promptLogprobs === true || !runsAhead || (chunk + 1) % awaitedEvery === 0;
  }

  /** What follows a chunk of a prompt; the scores of its tokens are added where they are wanted. */
  async #readChunk({ generation, promptScores, computed }: Running, lane: Lane): Promise<ChunkResult> {
    const { tokens, promptLogprobs, logprobs = 0 } = generation.request;
    if (!promptLogprobs) {
      const { next, decaySpans } = await this.#slots.next([lane], [generation.choice()]);
      return { next: next[0], decaySpan: decaySpans?.[0] };
    }
    const { logits, decaySpans } = await this.#slots.run([lane], "all");
    const V = this.vocabularySize;
    tokens.slice(computed + 1, computed + 1 + lane.count).forEach((token, index) => {
      promptScores.push(scoreOf(logits.subarray(index * V, (index + 1) * V), token, logprobs));
    });
    return { next: logits.subarray(-V), decaySpan: decaySpans?.[0] };
  }

  /** Computes a token of each answer. @returns true: its end is waited for */
  async #decode(sequences: readonly Running[]): Promise<true> {
    const lanes = sequences.map(({ generation, slot }) => ({ slot, tokens: generation.tokens, count: 1 }));
    const choices = sequences.map(({ generation }) => generation.choice());
    const { next, decaySpans } = await this.#slots.next(lanes, choices);
    this.#observer.stepDone?.({ promptTokens: 0, generatedTokens: sequences.length });
    sequences.forEach((running, index) => {
      const { generation } = running;
      this.#lastUse[running.slot] = this.#steps;
      if (generation.isOver || this.#isClamped(generation, decaySpans?.[index])) return;
      this.#add(generation, next[index] as number | Float32Array);
    });
    return true;
  }

  /** What cannot be added ends this answer alone: the run has succeeded, for the others in it too. */
  #add(generation: Generation, next: number | Float32Array): void {
    const now = performance.now();
    try {
      generation.add(next);
    } catch (error) {
      generation.fail(error);
      return;
    }
    const isFirst = generation.firstTokenMs === undefined;
    this.#observer.tokenDone?.((now - (generation.lastTokenMs ?? generation.queuedMs)) / 1000, isFirst);
    generation.firstTokenMs ??= now;
    generation.lastTokenMs = now;
  }

  /** Form `sdpa` differs from the full pass from some decay on; such an answer ends with an error. */
  #isClamped(generation: Generation, span: number | undefined): boolean {
    if (span === undefined || span <= 2 * sdpaClamp) return false;
    generation.fail(
      new DataError(
        `decay has reached ${span.toFixed(1)}, and form "sdpa" clamps above ${2 * sdpaClamp}: serve the model in form "exact"`,
      ),
    );
    return true;
  }

  #settle(): void {
    if (this.#admitted > 0 || this.#running.length > 0 || this.#waiting.length > 0) return;
    for (const resolve of this.#idle) resolve();
    this.#idle = [];
  }

  /** Takes no more requests; resolves when all that were taken are answered and given back. */
  async drain(): Promise<void> {
    this.#draining = true;
    await new Promise<void>((resolve) => {
      this.#idle.push(resolve);
      this.#settle();
    });
  }

  /** Ends at once: what is still running fails. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#draining = true;
    this.#closed = true;
    const ended = new ShuttingDownError("the server was shut down before the answer was complete");
    for (const generation of [...this.#waiting, ...this.#running.map((running) => running.generation)]) {
      generation.fail(ended);
    }
    this.#wake?.();
    await this.#loop;
    await this.#slots.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Lets others work: runs on some backends do not wait for a device. */
function pause(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
}

/** Room for sequences in the engine. */
export class Admission implements Disposable {
  /** Takes a place of the room. @throws ConfigError, DataError, ContextLengthError for a request that cannot be */
  readonly submit: (request: GenerationRequest) => Generation;
  readonly #giveBack: () => void;
  #isOver = false;

  constructor(submit: (request: GenerationRequest) => Generation, giveBack: () => void) {
    this.submit = submit;
    this.#giveBack = giveBack;
  }

  /** Gives the room back. */
  release(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#giveBack();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
