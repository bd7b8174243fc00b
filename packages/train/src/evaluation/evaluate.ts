// Runs a task on a model, batch by batch, so that what was scored before an end of any kind is not scored again.
import { CheckpointError } from "@sisa/core";
import { bytesOf, fingerprint } from "./fingerprint.ts";
import type { RowScore, Scorer } from "./scorer.ts";
import type { HeatMap, Metric, Task } from "./task.ts";

/** What a task measured: what is written as JSON. */
export interface TaskResult {
  /** As on the command line: "hellaswag:harness". */
  readonly task: string;
  /** Whose rules were followed, with their settings. */
  readonly protocol: string;
  /** The metric that stands for the task. */
  readonly headline: string;
  /** How many items were measured. */
  readonly items: number;
  /** By name. */
  readonly metrics: Readonly<Record<string, Metric>>;
  /** Of tasks that measure by two quantities. */
  readonly heatMap?: HeatMap;
}

/** A row's number among all rows of a task, and its score. */
export type ScoredEntry = readonly [row: number, logProbability: number, correct: number];

/** Where scores are kept while a task is running. `evaluationLog` of "@sisa/train/node" is a file. */
export interface EvaluationLog {
  /**
   * What is known from before.
   * @param fingerprint of task, items and model; scores of another are dropped
   */
  begin(fingerprint: string): ScoredEntry[] | Promise<ScoredEntry[]>;
  /** Keeps the scores of a batch, all of them or none. */
  append(entries: readonly ScoredEntry[]): void | Promise<void>;
}

/** Where scores are kept and who is told. */
export interface EvaluateOptions {
  /** Where a task goes on after an end of any kind. Default: it begins anew. */
  readonly log?: EvaluationLog | undefined;
  /**
   * Differs where parameters differ, as `parameterFingerprint` gives it; needed with a log. Default: the empty text.
   */
  readonly modelFingerprint?: string;
  /** Told of rows scored, and rows in all, after each batch. Default: nobody is told. */
  readonly onProgress?: ((done: number, all: number) => void) | undefined;
  /** Aborted, the task ends between two batches, with the signal's reason. Default none. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs a task to its end, batch by batch; each batch is in the log, where there is one, before the next is scored.
 *
 * @throws CheckpointError where the log has rows that the task does not have; the signal's reason once it is aborted
 */
export async function evaluate(task: Task, scorer: Scorer, options: EvaluateOptions = {}): Promise<TaskResult> {
  const { log, onProgress, signal } = options;
  const rows = task.items.flatMap((item) => item.rows);
  const scores: (RowScore | undefined)[] = new Array(rows.length);
  let done = 0;
  const take = (entries: readonly ScoredEntry[]): void => {
    for (const [row, logProbability, correct] of entries) {
      if (row >= rows.length)
        throw new CheckpointError(`${task.name}: its log has row ${row}, the task ${rows.length}`);
      if (scores[row] === undefined) done++;
      scores[row] = { logProbability, correct };
    }
  };
  if (log !== undefined) take(await log.begin(await fingerprintOf(task, options.modelFingerprint ?? "")));

  const open = rows.flatMap((row, index) => (scores[index] === undefined ? [{ row, index }] : []));
  onProgress?.(done, rows.length);
  for (const batch of scorer.batches(open.map(({ row }) => row))) {
    signal?.throwIfAborted();
    const picked = batch.flatMap((place) => open[place] ?? []);
    const found = await scorer.score(picked.map(({ row }) => row));
    const entries = found.map(
      ({ logProbability, correct }, place): ScoredEntry => [picked[place]?.index ?? -1, logProbability, correct],
    );
    await log?.append(entries);
    take(entries);
    onProgress?.(done, rows.length);
  }

  let first = 0;
  const measures = task.items.map((item) => {
    const own = scores.slice(first, first + item.rows.length) as RowScore[];
    first += item.rows.length;
    return item.measure(own);
  });
  const { name, protocol, headline } = task;
  return { task: name, protocol, headline, items: task.items.length, ...task.summarize(measures) };
}

/** Differs where task, items or parameters do. */
async function fingerprintOf(task: Task, model: string): Promise<string> {
  const rows = task.items.flatMap((item) => item.rows);
  const header = new TextEncoder().encode(`${task.name}\n${task.protocol}\n${model}\n`);
  const arrays = rows.flatMap(({ ids, places, targets }) => [
    Int32Array.of(ids.length, places.length),
    ids,
    places,
    targets,
  ]);
  return await fingerprint([header, ...arrays.map(bytesOf)]);
}
