// The cases as a command: which of them a backend passes, how fast it is, and the table of docs/features.md.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Backend } from "@sisa/core";
import { allCases } from "./cases/index.ts";
import { featureTable } from "./features.ts";
import { fuzz, fuzzSeeds } from "./modes/fuzz.ts";
import { readRecordings, recordingOf, writeRecording } from "./recording.ts";
import { counts, type Mode, modes, type Row, rowsTable } from "./result.ts";
import { type RunOptions, runCase } from "./run-case.ts";

const usage = `node packages/conformance/run.mjs [options]

  --backend NAME   reference, onnxruntime, cuda, webgpu, or webgpu:swiftshader, a GPU that is a
                   program; may be repeated                         [reference]
  --mode MODE      forward, grad, fuzz or perf; may be repeated     [forward]
  --op NAME        only cases of this operation; may be repeated    [all]
  --case NAME      only cases with this name
  --seed N         mode fuzz: only this program
  --all            also print what passed
  --features FILE  run forward and grad of every case, keep what they gave in packages/conformance/recorded,
                   and write the table of all that is kept there
`;

const { values: options } = parseArgs({
  options: {
    backend: { type: "string", multiple: true, default: ["reference"] },
    mode: { type: "string", multiple: true, default: ["forward"] },
    op: { type: "string", multiple: true },
    case: { type: "string" },
    seed: { type: "string" },
    all: { type: "boolean", default: false },
    features: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** How a backend is made, and what it does not promise. */
export interface BackendEntry extends RunOptions {
  open(): Promise<Backend>;
}

async function rowsOf(backend: Backend, mode: Mode, promises: RunOptions): Promise<readonly Row[]> {
  const rows: Row[] = [];
  if (mode === "fuzz") {
    const seeds = options.seed === undefined ? fuzzSeeds() : [Number(options.seed)];
    for (const seed of seeds) rows.push(await fuzz(backend, seed));
    return rows;
  }
  for (const { op, cases } of allCases) {
    if (options.op && !options.op.includes(op)) continue;
    for (const test of cases) {
      if (options.case !== undefined && options.case !== test.name) continue;
      if ((mode === "perf") !== (test.perf === true)) continue;
      const row = await runCase(backend, op, test, mode, promises);
      if (row) rows.push(row);
    }
  }
  return rows;
}

/**
 * Runs the command and returns its exit code.
 * @param backends   by name; they are opened when they are asked for
 * @param recordings folder of what their cases gave
 */
export async function main(backends: Readonly<Record<string, BackendEntry>>, recordings: string): Promise<number> {
  if (options.help) {
    process.stdout.write(usage);
    return 0;
  }
  const { features } = options;
  if (features !== undefined && (options.op !== undefined || options.case !== undefined)) {
    process.stderr.write("--features: expected every case to be run, got --op or --case; leave them out\n");
    return 2;
  }
  const chosen = features === undefined ? modes.filter((mode) => options.mode.includes(mode)) : [];
  let failed = 0;
  for (const name of options.backend) {
    const entry = backends[name];
    if (entry === undefined) {
      process.stderr.write(`expected a backend of ${Object.keys(backends).join(", ")}, got "${name}"\n`);
      return 2;
    }
    const backend = await entry.open();
    const rows: Row[] = [];
    for (const mode of features === undefined ? chosen : (["forward", "grad"] as const)) {
      rows.push(...(await rowsOf(backend, mode, entry)));
    }
    const device = "description" in backend ? String(backend.description) : "the CPU";
    await backend.close();
    const shown = options.all || chosen.includes("perf") ? rows : rows.filter(({ status }) => status !== "passed");
    const total = counts(rows);
    if (features === undefined && shown.length > 0) process.stdout.write(`${rowsTable(shown)}\n\n`);
    process.stdout.write(`${name}: ${total.passed} passed, ${total.failed} failed, ${total.unsupported} unsupported\n`);
    failed += total.failed;
    if (features !== undefined) {
      const date = new Date().toISOString().slice(0, "2026-01-01".length);
      writeRecording(recordings, recordingOf(backend.name, device, date, rows));
    }
  }
  if (features !== undefined) writeFileSync(features, featureTable(readRecordings(recordings)));
  return failed === 0 ? 0 : 1;
}
