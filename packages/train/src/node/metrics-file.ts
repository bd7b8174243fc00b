// Metrics on disk: one JSON object a line. The file is only ever appended to, but for a resume, which cuts it back.
import { closeSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { type MetricsRecord, type MetricsSink, metricsLine, parseMetricsLine } from "../metrics/metrics.ts";

/**
 * Writes records to a file. When a run starts at step 0 the file is begun anew; when it resumes, records past the
 * checkpoint's step, and a line that a crash left half-written, are cut off.
 */
export function metricsFile(path: string): MetricsSink {
  let file: number | undefined;
  return {
    start(step: number): void {
      mkdirSync(dirname(path), { recursive: true });
      file = openSync(path, "a+");
      ftruncateSync(file, bytesUpTo(readFileSync(path), step));
    },
    write(record: MetricsRecord): void {
      file ??= openSync(path, "a+");
      const line = Buffer.from(`${metricsLine(record)}\n`);
      for (let done = 0; done < line.length; ) done += writeSync(file, line, done);
    },
    flush(): void {
      if (file !== undefined) fsyncSync(file);
    },
    close(): void {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

/** Length of the part that holds whole records of steps up to the given one. */
function bytesUpTo(content: Buffer, step: number): number {
  let at = 0;
  for (;;) {
    const end = content.indexOf(10, at);
    if (end < 0) return at;
    const record = parseMetricsLine(content.toString("utf8", at, end));
    if (step === 0 || record === undefined || record.step > step) return at;
    at = end + 1;
  }
}

/** All whole records of a metrics file, in order. */
export function readMetrics(path: string): MetricsRecord[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .map(parseMetricsLine)
    .filter((record) => record !== undefined);
}
