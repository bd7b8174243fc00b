// Where the caches of sequences lie on a backend, and the programs that compute over them.

import type { Backend, DeviceTensor, LanguageModel, Precision, TensorSpec } from "@sisa/core";
import type { Program } from "./programs.ts";

export interface CachesOptions {
  readonly model: LanguageModel;
  readonly parameters: { readonly [name: string]: Float32Array };
  readonly backend: Backend;
  /** Widths of weights, caches and what is computed, where the backend has them. Default "float32". */
  readonly precision?: Precision;
  /** Sequences that are in memory at once. */
  readonly slots: number;
  /** Tokens of one sequence, prompt included. */
  readonly contextLength: number;
  /** Tokens of all sequences together that are in memory at once. Default slots * contextLength. */
  readonly cacheTokens?: number;
}

/** What one sequence does in a run: the last `count` of its tokens are computed, those before them are in its slot. */
export interface Lane {
  readonly slot: number;
  readonly tokens: readonly number[];
  readonly count: number;
}

/** A beginning that a slot holds. */
export interface Beginning {
  readonly slot: number;
  readonly count: number;
}

/** What a slot begins with, and the slots that were emptied to make room for it. */
export interface Begun {
  readonly count: number;
  readonly emptied: readonly number[];
}

/** Inputs of a step that are known to the host. */
export interface Numbers {
  readonly [name: string]: { readonly spec: TensorSpec<"int">; readonly data: Int32Array };
}

/** Memory of a number of slots. Which tokens they hold is known to its owner. */
export interface Caches {
  /** Tokens of a prompt that are computed in one run, at most; on backends that need a fixed count, as many. */
  readonly chunkLength: number;
  /**
   * Gives a slot a beginning, which may be its own, and room for `most` tokens.
   * @param idle slots that may be emptied for that, those first that are missed least
   * @returns undefined where there is no room as long as the others have theirs
   */
  begin(slot: number, from: Beginning, most: number, idle: readonly number[]): Promise<Begun | undefined>;
  /** A slot keeps so many tokens, and room for no more. */
  release(slot: number, count: number): void;
  /** Tokens in one run of a lane, of which `count` are wanted. */
  runLength(count: number): number;
  /** Position of the first token that a lane computes in a run of this length. */
  startOf(lane: Lane, length: number): number;
  /** Lanes that fill up a run to `width`; what they give is for nobody. @param contents tokens of each slot */
  fillers(lanes: readonly Lane[], width: number, contents: readonly (readonly number[])[]): readonly Lane[];
  /** The program of a step: lanes, tokens of each, and positions whose logits it gives. */
  step(width: number, length: number, places: number): Promise<Program>;
  /** The memory of these lanes, as inputs of a step. */
  memoryOf(lanes: readonly Lane[]): { readonly [name: string]: DeviceTensor };
  /** What a step takes besides to find it. */
  placesOf(lanes: readonly Lane[]): Numbers;
  /**
   * After a run that failed. What it was to write is lost, and stays so: memory is made anew.
   * @returns slots that hold nothing any more
   */
  renew(lanes: readonly Lane[]): readonly number[];
  close(): Promise<void>;
}
