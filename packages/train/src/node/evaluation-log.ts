// Scores on disk while a task is running: a line that says whose they are, then a line a batch.
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import type { EvaluationLog, ScoredEntry } from "../evaluation/evaluate.ts";

/** A number that is not finite, such as the logarithm of 0, which JSON would have as null. */
const asText = (_key: string, value: unknown): unknown =>
  typeof value === "number" && !Number.isFinite(value) ? String(value) : value;

/**
 * A log in a file. Each batch is one write of one line, so an end at any moment loses at most the batch it was in; a line
 * that was left half-written is dropped. The file is begun anew where it belongs to another model, task or set of items.
 */
export function evaluationLog(path: string): EvaluationLog & {
  /** Closes the file. */
  close(): void;
} {
  let file: number | undefined;
  const writeLine = (value: unknown): void => {
    const line = Buffer.from(`${JSON.stringify(value, asText)}\n`);
    for (let done = 0; done < line.length; ) done += writeSync(file ?? -1, line, done);
  };
  return {
    begin(fingerprint) {
      mkdirSync(dirname(path), { recursive: true });
      file = openSync(path, "a+");
      const content = readFileSync(path);
      const end = content.lastIndexOf(10) + 1;
      const [header, ...lines] = content.toString("utf8", 0, end).split("\n").slice(0, -1);
      if (header === JSON.stringify({ fingerprint })) {
        ftruncateSync(file, end);
        const entries = lines.flatMap((line) => JSON.parse(line) as ScoredEntry[]);
        return entries.map((entry) => entry.map(Number) as unknown as ScoredEntry);
      }
      ftruncateSync(file, 0);
      writeLine({ fingerprint });
      return [];
    },
    append: (entries) => writeLine(entries),
    close() {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}
