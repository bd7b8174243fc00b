// TensorBoard event files on disk. A resumed run adds a file that tells TensorBoard where it goes on.
import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { MetricsSink } from "../metrics/metrics.ts";
import { fileVersionEvent, metricsEvent, resumeEvent } from "../metrics/tensorboard.ts";

/** Writes scalars and samples for `tensorboard --logdir <folder>`. */
export function tensorboardFolder(folder: string): MetricsSink {
  let file: number | undefined;
  const now = (): number => Date.now() / 1000;
  function append(record: Uint8Array): void {
    if (file === undefined) return;
    for (let done = 0; done < record.length; ) done += writeSync(file, record, done);
  }
  return {
    start(step: number): void {
      mkdirSync(folder, { recursive: true });
      // TensorBoard reads files in the order of their names, and takes only names with "tfevents" in them.
      const time = Date.now().toString().padStart(14, "0");
      file = openSync(join(folder, `events.out.tfevents.${time}.${hostname()}.${process.pid}`), "ax");
      append(fileVersionEvent(now()));
      // Also at step 0: the folder may hold the files of an earlier run.
      append(resumeEvent(now(), step));
    },
    write(record): void {
      append(metricsEvent(now(), record));
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
