// Which tokens a step trains on: a pure function of seed, step, micro-batch and row. A resumed run needs only the step.
import { DataError, RandomStream } from "@sisa/core";
import type { TokenSource } from "./training-data.ts";

/** How a run cuts its data into batches. */
export interface BatchPlan {
  /** Of the order of sequences. */
  readonly seed: number;
  /** Tokens a sequence (T); a row has one more, the last target. */
  readonly sequenceLength: number;
  /** Rows of a micro-batch (B). */
  readonly microBatchSize: number;
  /** Micro-batches of a step. */
  readonly gradientAccumulation: number;
}

/** Ids that a sequence reads, [B, T], and the ids that follow them, [B, T]. */
export interface Batch {
  /** [B, T], row major */
  readonly ids: Int32Array;
  /** [B, T], row major */
  readonly targets: Int32Array;
}

/**
 * Refuses data that is too short for one sequence.
 * @throws DataError
 */
export function requireLength(source: TokenSource, sequenceLength: number, part: string): void {
  if (source.length >= sequenceLength + 1) return;
  throw new DataError(
    `${part}: expected at least ${sequenceLength + 1} tokens (sequenceLength + 1), got ${source.length}; ` +
      `give more text or lower sequenceLength`,
  );
}

/**
 * The micro-batch of a step. The source is cut every T tokens; each pass over it goes through all pieces once, in an
 * order that depends on the seed and the pass.
 *
 * @param step from 0
 * @param microBatch from 0
 * @throws DataError where the source is shorter than one sequence
 */
export async function trainingBatch(
  source: TokenSource,
  plan: BatchPlan,
  step: number,
  microBatch: number,
): Promise<Batch> {
  const { seed, sequenceLength, microBatchSize, gradientAccumulation } = plan;
  requireLength(source, sequenceLength, "training data");
  const pieces = Math.floor((source.length - 1) / sequenceLength);
  const firstRow = (step * gradientAccumulation + microBatch) * microBatchSize;
  const starts = Array.from({ length: microBatchSize }, (_, row) => {
    const index = firstRow + row;
    const pass = Math.floor(index / pieces);
    return shuffled(index % pieces, pieces, seed, pass) * sequenceLength;
  });
  return readBatch(source, starts, sequenceLength);
}

/** The fixed batches of a held-out loss. */
export interface HeldOutPlan {
  /** Rows of every batch. */
  readonly rows: number;
  readonly sequenceLength: number;
  /** Where the rows of each batch start. */
  readonly starts: readonly (readonly number[])[];
}

/**
 * Pieces of the held-out tokens, spread evenly over them, the same each time. Short data gives fewer or shorter rows.
 *
 * @throws DataError below two tokens
 */
export function heldOutPlan(
  source: TokenSource,
  plan: { readonly sequenceLength: number; readonly microBatchSize: number; readonly heldOutBatches: number },
): HeldOutPlan {
  const sequenceLength = Math.min(plan.sequenceLength, source.length - 1);
  if (sequenceLength < 1) {
    throw new DataError(`held-out part: expected at least 2 tokens, got ${source.length}; give more text`);
  }
  const pieces = Math.floor((source.length - 1) / sequenceLength);
  const rows = Math.min(plan.microBatchSize, pieces);
  const batches = Math.min(plan.heldOutBatches, Math.floor(pieces / rows));
  const starts = Array.from({ length: batches }, (_, batch) =>
    Array.from({ length: rows }, (_, row) => {
      const piece = Math.floor(((batch * rows + row) * pieces) / (batches * rows));
      return piece * sequenceLength;
    }),
  );
  return { rows, sequenceLength, starts };
}

/** Rows from the given places: T ids and the T tokens that follow them, or what the source wants said after them. */
export async function readBatch(
  source: TokenSource,
  starts: readonly number[],
  sequenceLength: number,
): Promise<Batch> {
  const ids = new Int32Array(starts.length * sequenceLength);
  const targets = new Int32Array(starts.length * sequenceLength);
  await Promise.all(
    starts.map(async (start, row) => {
      const tokens = await source.read(start, sequenceLength + 1);
      const own = await source.readTargets?.(start, sequenceLength);
      ids.set(tokens.subarray(0, sequenceLength), row * sequenceLength);
      targets.set(own ?? tokens.subarray(1), row * sequenceLength);
    }),
  );
  return { ids, targets };
}

/**
 * Place of `index` in a random order of 0 ... length - 1, without making the order: a Feistel network over the next power
 * of four, walked until it lands inside (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
 *
 * @throws DataError unless 0 <= index < length: no walk would end
 */
export function shuffled(index: number, length: number, seed: number, pass: number): number {
  if (!(index >= 0 && index < length)) throw new DataError(`shuffled: expected a place below ${length}, got ${index}`);
  let halfBits = 1;
  while (4 ** halfBits < length) halfBits++;
  const half = 2 ** halfBits;
  const stream = new RandomStream(seed, `data order ${pass}`);
  let value = index;
  do {
    let left = Math.floor(value / half);
    let right = value % half;
    for (let round = 0; round < 4; round++) {
      const mixed = stream.below(half, round * half + right);
      [left, right] = [right, (left ^ mixed) >>> 0];
    }
    value = left * half + right;
  } while (value >= length);
  return value;
}
