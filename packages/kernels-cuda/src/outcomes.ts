// What runs may turn out to have found wrong, such as an id outside a table. Kernels note the first bad value where a read
// looks; here is kept whose results that concerns, also where they were kept, or read by other programs.

import { DataError } from "@sisa/core";
import type { FaultSite, Plan } from "./plan.ts";

/** The end of some runs of a program, which is known once something is read. */
export interface Outcome {
  readonly isKnown: boolean;
  readonly error: DataError | undefined;
}

class Runs implements Outcome {
  isKnown = false;
  error: DataError | undefined;
  readonly faults: ReadonlyMap<number, FaultSite>;

  constructor(faults: ReadonlyMap<number, FaultSite>) {
    this.faults = faults;
  }
}

/** What a read finds where kernels report: the number of a node, 0 where there is no bad value, and the value. */
export type Finding = readonly [number: number, value: number];

export class Outcomes {
  /** Runs since the last read, by what may be wrong with them; then those before each read that is on its way, oldest first. */
  #recent = new Map<Plan["faults"], Runs>();
  #earlier: (readonly Runs[])[] = [];
  /** How often what kernels reported was cleared. */
  #cleared = 0;
  readonly #clear: () => void;

  /** @param clear enqueues that kernels may report again */
  constructor(clear: () => void) {
    this.#clear = clear;
  }

  /** The outcome of a run that is enqueued now; undefined where nothing can be wrong. */
  ofRun(faults: Plan["faults"]): Outcome | undefined {
    if (faults.size === 0) return undefined;
    const known = this.#recent.get(faults);
    if (known) return known;
    const runs = new Runs(faults);
    this.#recent.set(faults, runs);
    return runs;
  }

  /** To be called when a read is enqueued. @returns to be called with what it finds */
  beginRead(): (finding: Finding) => void {
    const runs = [...this.#recent.values()];
    this.#recent = new Map();
    this.#earlier.push(runs);
    const cleared = this.#cleared;
    return ([number, value]) => {
      // Reads that are on their way together may end in any order, and find the same.
      const before = this.#earlier.splice(0, this.#earlier.indexOf(runs) + 1).flat();
      if (number !== 0 && cleared === this.#cleared) {
        for (const failed of before) {
          const site = failed.faults.get(number);
          if (site) failed.error = new DataError(site.describe(value));
        }
        this.#cleared += 1;
        this.#clear();
      }
      for (const run of before) run.isKnown = true;
    };
  }
}

export const noOutcomes: readonly Outcome[] = [];

/** What a run's results depend on: its own outcome, and what is not known to be right of what it reads. */
export function joinOutcomes(
  own: Outcome | undefined,
  ...read: readonly (readonly { readonly outcomes: readonly Outcome[] }[])[]
): readonly Outcome[] {
  const joined = own ? [own] : [];
  let last = noOutcomes;
  for (const blocks of read) {
    for (let i = 0; i < blocks.length; i++) {
      const { outcomes } = blocks[i] as (typeof blocks)[number];
      // Most come from one run before.
      if (outcomes === last) continue;
      last = outcomes;
      for (const outcome of outcomes) {
        if (outcome.error) return [outcome];
        if (!outcome.isKnown && !joined.includes(outcome)) joined.push(outcome);
      }
    }
  }
  return joined;
}
