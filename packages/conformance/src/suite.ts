// Registers the cases as tests: `conformanceSuite` in a backend's package, `definitionSuite` for core itself.

import type { Backend } from "@sisa/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allCases } from "./cases/index.ts";
import { contractTests } from "./contract.ts";
import { checkCase, checkExpected, checkGradients, checkPasses, checkRefusal } from "./definition.ts";
import { type FuzzOptions, fuzz, fuzzSeeds } from "./modes/fuzz.ts";
import { randomCase } from "./modes/random-program.ts";
import { operations } from "./operations.ts";
import { type Row, rowsTable } from "./result.ts";
import { inPart, type RunOptions, runCases } from "./run-case.ts";

export interface SuiteOptions extends RunOptions {
  /** Default: forward, grad and fuzz. */
  readonly modes?: readonly ("forward" | "grad" | "fuzz")[];
  /** Only these operations. Default: all. */
  readonly ops?: readonly string[];
  /** Which random programs mode fuzz runs; `{ seeds: [17] }` replays one. */
  readonly fuzz?: FuzzOptions;
  /**
   * Cases that the backend may refuse, as `op/case` with `*` for anything: `"*\/float16"`. A case that is refused and not
   * named here fails, and so does an entry that nothing is refused by.
   */
  readonly unsupported?: readonly string[];
}

/**
 * One test for each operation and mode. It fails with a table of what went wrong.
 *
 * @param name   shown in front of the tests
 * @param create makes the backend; it is closed after the last test
 */
export function conformanceSuite(
  name: string,
  create: () => Backend | Promise<Backend>,
  options: SuiteOptions = {},
): void {
  const { modes = ["forward", "grad", "fuzz"], ops, unsupported = [] } = options;
  const declared = unsupported.map((pattern) => ({ pattern, matches: matcher(pattern), used: false }));

  /** Rows that are not as they should be: failures, and refusals that nobody declared. */
  const wrong = (rows: readonly Row[]) =>
    rows.filter((row) => {
      if (row.status !== "unsupported") return row.status === "failed";
      const entries = declared.filter(({ matches }) => matches(`${row.op}/${row.case}`));
      for (const entry of entries) entry.used = true;
      return entries.length === 0 && !(options.ieee === false && row.error === "no IEEE 754 guarantees");
    });

  describe(`conformance of ${name}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await create();
    });
    afterAll(() => backend.close());

    for (const mode of modes) {
      if (mode === "fuzz") {
        test.for(fuzzSeeds(options.fuzz, options.part))("fuzz seed %i", async (seed) => {
          expectNone(wrong([await fuzz(backend, seed)]));
        });
        continue;
      }
      for (const cases of allCases) {
        if (ops && !ops.includes(cases.op)) continue;
        if (!cases.cases.some((item) => inPart(item, options.part))) continue;
        test(`${mode} of ${cases.op}`, async () => {
          expectNone(wrong(await runCases(backend, cases, mode, options)));
        });
      }
    }

    if (!ops && options.part !== "slow" && modes.includes("forward")) {
      contractTests(() => backend, create);
      test("every declared refusal happens", () => {
        expect(declared.filter(({ used }) => !used).map(({ pattern }) => pattern)).toEqual([]);
      });
    }
  });
}

function expectNone(rows: readonly Row[]): void {
  expect(rows.length === 0 ? "" : `\n${rowsTable(rows)}\n`).toBe("");
}

function matcher(pattern: string): (name: string) => boolean {
  const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  const expression = new RegExp(`^${parts.join(".*")}$`);
  return (name) => expression.test(name);
}

/** Tests of the reference itself and of what core builds on it; no backend takes part. */
export function definitionSuite({ part, ops }: Pick<SuiteOptions, "part" | "ops"> = {}): void {
  const chosen = allCases.filter(({ op }) => !ops || ops.includes(op));
  const checks = {
    "cases are well formed": checkCase,
    "values are those of independent formulas": checkExpected,
    "gradients are those of finite differences and compositions": checkGradients,
    "passes change nothing": checkPasses,
  };
  if (part !== "slow") checkCoverage();
  for (const [title, check] of Object.entries(checks)) {
    describe(title, () => {
      for (const { op, cases } of chosen) {
        const own = cases.filter((item) => inPart(item, part));
        if (own.length === 0) continue;
        test(op, () => {
          const problems = own.flatMap((item) => {
            const problem = attempt(() => check(op, item));
            return problem === undefined ? [] : [`${item.name}: ${problem}`];
          });
          expect(problems).toEqual([]);
        });
      }
    });
  }
  if (!ops) {
    describe("random programs", () => {
      test.for(fuzzSeeds({}, part))("seed %i", (seed) => {
        const item = randomCase(seed);
        const problems = [checkPasses, checkGradients].flatMap((check) => attempt(() => check("fuzz", item)) ?? []);
        expect(problems).toEqual([]);
      });
    });
  }
  if (part === "slow") return;
  describe("wrong uses are refused in the user's words", () => {
    for (const { op, refusals } of chosen) {
      if (refusals.length === 0) continue;
      test(op, () => {
        const problems = refusals.flatMap((item) => {
          const problem = checkRefusal(item);
          return problem === undefined ? [] : [`${item.name}: ${problem}`];
        });
        expect(problems).toEqual([]);
      });
    }
  });
}

function checkCoverage(): void {
  describe("every operation that core exports", () => {
    test("has cases", () => {
      const covered = new Set(allCases.map(({ op }) => op));
      expect([...operations.keys()].filter((name) => !covered.has(name))).toEqual([]);
    });
    test("has each of its cases once", () => {
      const names = allCases.flatMap(({ op, cases }) => cases.map(({ name }) => `${op}/${name}`));
      expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
    });
  });
}

/** A check that throws has found a problem too, and the other cases still count. */
function attempt(check: () => string | undefined): string | undefined {
  try {
    return check();
  } catch (error) {
    return String(error);
  }
}
