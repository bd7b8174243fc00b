// Mode forward: what a backend computes, against the reference in float64.

import { type Backend, SisaError } from "@sisa/core";
import type { Case } from "../case.ts";
import { makeInputs, sameBits } from "../data.ts";
import { graphOf } from "../program.ts";
import { Compiled, compareOutputs, definition, failed, type Outcome, outcomeOf, passed, sizesText } from "./run.ts";

/** Runs one case at all its sizes. */
export async function forward(backend: Backend, op: string, test: Case): Promise<Outcome> {
  const compiled = new Compiled(backend, graphOf(test));
  try {
    for (const sizes of test.sizes) {
      const wrong = await runAt(compiled, backend, op, test, sizes);
      if (wrong !== undefined) return failed(wrong + sizesText(sizes));
    }
    return passed;
  } catch (error) {
    return outcomeOf(error);
  } finally {
    compiled.close();
  }
}

async function runAt(
  compiled: Compiled,
  backend: Backend,
  op: string,
  test: Case,
  sizes: Case["sizes"][number],
): Promise<string | undefined> {
  const bound = compiled.bound(sizes);
  const values = makeInputs(`${op}/${test.name}`, test.inputs, sizes);
  if (test.fails) {
    const error = await compiled.run(bound, values).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (error === undefined) return `must fail with ${test.fails.name}, but gave a result`;
    const right = backend.name === "reference" ? test.fails.isInstance(error) : SisaError.isInstance(error);
    return right ? undefined : `must fail with ${test.fails.name}, got ${outcomeOf(error).error}`;
  }
  const outputs = await compiled.run(bound, values);
  for (let again = 1; again < (test.repeat ?? 1); again++) {
    const next = await compiled.run(bound, values);
    for (const [name, first] of Object.entries(outputs)) {
      const second = next[name];
      if (!second || !sameBits(first, second)) return `${name}: run ${again + 1} gave other bits than the first`;
    }
  }
  return compareOutputs(
    bound,
    outputs,
    definition(bound, values, test.rounded),
    (output) => test.tolerances?.[output] ?? test.tolerance,
  );
}
