// The cases as a command: which of them a backend passes, how fast it is, and the table of docs/features.md.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Backend } from "@sisa/core";
import { allCases } from "./cases/index.ts";
import { featureTable } from "./features.ts";
import { fuzz, fuzzSeeds } from "./modes/fuzz.ts";
import { counts, type Mode, modes, type Row, rowsTable } from "./result.ts";
import { runCase } from "./run-case.ts";

const usage = `node packages/conformance/run.mjs [options]

  --backend NAME   reference, onnxruntime, cuda or webgpu; may be repeated  [reference]
  --mode MODE      forward, grad, fuzz or perf; may be repeated     [forward]
  --op NAME        only cases of this operation; may be repeated    [all]
  --case NAME      only cases with this name
  --seed N         mode fuzz: only this program
  --all            also print what passed
  --features FILE  run forward and grad, and write the table of what works where
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

async function rowsOf(backend: Backend, mode: Mode): Promise<readonly Row[]> {
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
      const row = await runCase(backend, op, test, mode);
      if (row) rows.push(row);
    }
  }
  return rows;
}

/**
 * Runs the command and returns its exit code.
 * @param backends by name; they are opened when they are asked for
 */
export async function main(backends: Readonly<Record<string, () => Promise<Backend>>>): Promise<number> {
  if (options.help) {
    process.stdout.write(usage);
    return 0;
  }
  const chosen = options.features === undefined ? modes.filter((mode) => options.mode.includes(mode)) : [];
  const tables: { readonly backend: string; readonly rows: readonly Row[] }[] = [];
  let failed = 0;
  for (const name of options.backend) {
    const open = backends[name];
    if (open === undefined) {
      process.stderr.write(`expected a backend of ${Object.keys(backends).join(", ")}, got "${name}"\n`);
      return 2;
    }
    const backend = await open();
    const rows: Row[] = [];
    for (const mode of options.features === undefined ? chosen : (["forward", "grad"] as const)) {
      rows.push(...(await rowsOf(backend, mode)));
    }
    await backend.close();
    tables.push({ backend: name, rows });
    const shown = options.all || chosen.includes("perf") ? rows : rows.filter(({ status }) => status !== "passed");
    const total = counts(rows);
    if (options.features === undefined && shown.length > 0) process.stdout.write(`${rowsTable(shown)}\n\n`);
    process.stdout.write(`${name}: ${total.passed} passed, ${total.failed} failed, ${total.unsupported} unsupported\n`);
    failed += total.failed;
  }
  if (options.features !== undefined) writeFileSync(options.features, featureTable(tables));
  return failed === 0 ? 0 : 1;
}
