// Runs cases on a backend in the modes forward, grad and perf, and reports each as a row.

import type { Backend } from "@sisa/core";
import type { Case, OpCases } from "./case.ts";
import { forward } from "./modes/forward.ts";
import { grad } from "./modes/grad.ts";
import { measure } from "./modes/perf.ts";
import type { Outcome } from "./modes/run.ts";
import type { Mode, Row } from "./result.ts";

/** A subset of the cases. Both together are all of them. */
export type Part = "fast" | "slow";

export interface RunOptions {
  /** False for backends that do not promise NaN, infinities and signed zeros as IEEE 754 has them. Default true. */
  readonly ieee?: boolean;
  /** `fast` leaves out the slow cases and most random programs, `slow` runs only those. Default: everything. */
  readonly part?: Part;
}

/** The row of one case in one mode; undefined where the case has nothing to run in it. */
export async function runCase(
  backend: Backend,
  op: string,
  test: Case,
  mode: Exclude<Mode, "fuzz">,
  options: RunOptions = {},
): Promise<Row | undefined> {
  const row = { op, case: test.name, mode, ...(test.note !== undefined && { note: test.note }) };
  if (test.ieee && options.ieee === false) {
    return mode === "forward" ? { ...row, status: "unsupported", error: "no IEEE 754 guarantees" } : undefined;
  }
  const outcome = await modeOf(mode)(backend, op, test);
  return outcome && { ...row, ...outcome };
}

function modeOf(
  mode: Exclude<Mode, "fuzz">,
): (backend: Backend, op: string, test: Case) => Promise<(Outcome & { readonly note?: string }) | undefined> {
  return { forward, grad, perf: measure }[mode];
}

/** Whether a case belongs to a part. Cases for mode perf belong to none. */
export function inPart({ perf, slow }: Case, part: Part | undefined): boolean {
  return !perf && (part === undefined || (part === "slow") === (slow === true));
}

/** The rows of all cases of an operation in one mode. */
export async function runCases(
  backend: Backend,
  { op, cases }: OpCases,
  mode: Exclude<Mode, "fuzz">,
  options: RunOptions = {},
): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const test of cases) {
    if (mode === "perf" ? !test.perf : !inPart(test, options.part)) continue;
    const row = await runCase(backend, op, test, mode, options);
    if (row) rows.push(row);
  }
  return rows;
}
