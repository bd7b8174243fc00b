// What a backend's cases gave, kept in a file: backends run on different machines, and the table shows all of them.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { counts, type Row, type Status } from "./result.ts";

/** How many cases ended in which way; ways in which none did are left out. */
export type Tally = Readonly<Partial<Record<Status, number>>>;

export interface Recording {
  readonly backend: string;
  /** What it ran on, in its own words. */
  readonly device: string;
  /** Of the run, as YYYY-MM-DD. */
  readonly date: string;
  /** Why cases were refused. */
  readonly refusals: readonly string[];
  /** By operation; `gradient` where its cases can be differentiated. */
  readonly operations: Readonly<Record<string, { readonly forward: Tally; readonly gradient?: Tally }>>;
}

/** The columns of the table, in their order. A backend whose cases were never recorded has its column too. */
export const recordedBackends = ["reference", "onnxruntime", "webgpu", "cuda"] as const;

/** @param rows of modes forward and grad, of every case */
export function recordingOf(backend: string, device: string, date: string, rows: readonly Row[]): Recording {
  const tally = (own: readonly Row[]): Tally =>
    Object.fromEntries(Object.entries(counts(own)).filter(([, count]) => count > 0));
  const names = [...new Set(rows.map(({ op }) => op))].sort();
  const operations = names.map((name) => {
    const [forward, gradient] = (["forward", "grad"] as const).map((mode) =>
      rows.filter((row) => row.op === name && row.mode === mode),
    );
    return [name, { forward: tally(forward ?? []), ...(gradient?.length ? { gradient: tally(gradient) } : {}) }];
  });
  const refused = rows.filter(({ status }) => status === "unsupported");
  const reasons = refused.map(({ error = "" }) => error.replace(/^.*cannot run ".*": |, got .*$/g, ""));
  return { backend, device, date, refusals: [...new Set(reasons)].sort(), operations: Object.fromEntries(operations) };
}

/** @param folder of recordings: one file for each backend, named after it */
export function writeRecording(folder: string, recording: Recording): void {
  mkdirSync(folder, { recursive: true });
  const { operations, ...about } = recording;
  const head = JSON.stringify(about, undefined, 2).slice(0, -2);
  // A line for each operation, so that changes are seen.
  const lines = Object.entries(operations).map(([name, tallies]) => `    "${name}": ${JSON.stringify(tallies)}`);
  const text = `${head},\n  "operations": {\n${lines.join(",\n")}\n  }\n}\n`;
  writeFileSync(path.join(folder, `${recording.backend}.json`), text);
}

/** The recordings that there are, by backend. */
export function readRecordings(folder: string): ReadonlyMap<string, Recording> {
  const files = recordedBackends.map((name) => [name, path.join(folder, `${name}.json`)] as const);
  const there = files.filter(([, file]) => existsSync(file));
  return new Map(there.map(([name, file]) => [name, JSON.parse(readFileSync(file, "utf8"))]));
}
