// Mode fuzz: random programs, their values and gradients, on a backend and on the reference.

import { type Backend, evaluate, type Graph, GraphError, kindOf, RandomStream } from "@sisa/core";
import type { Case, Values } from "../case.ts";
import { difference, nmseOf } from "../compare.ts";
import { fromTyped, makeInputs } from "../data.ts";
import { graphOf } from "../program.ts";
import type { Row } from "../result.ts";
import type { Part } from "../run-case.ts";
import { gradientGraph } from "./grad.ts";
import { randomCase } from "./random-program.ts";
import { Compiled, definition, failed, type Outcome, outcomeOf, passed, sizesText } from "./run.ts";

export interface FuzzOptions {
  /** Exactly these programs: what replays a failure. */
  readonly seeds?: readonly number[];
  /** How many programs, from seed 0 on. Default 100. */
  readonly count?: number;
}

/** Seeds of the fast part. */
const fastSeeds = 20;

export function fuzzSeeds({ seeds, count = 100 }: FuzzOptions = {}, part?: Part): readonly number[] {
  if (seeds) return seeds;
  const all = Array.from({ length: count }, (_, seed) => seed);
  if (part === undefined) return all;
  return part === "fast" ? all.slice(0, fastSeeds) : all.slice(fastSeeds);
}

/** Runs the program of one seed: forward, and its gradients where it has some. */
export async function fuzz(backend: Backend, seed: number): Promise<Row> {
  const row = { op: "fuzz", case: `seed ${seed}`, mode: "fuzz" } as const;
  const notes: string[] = [];
  let graph: Graph | undefined;
  let outcome = passed;
  try {
    const test = randomCase(seed);
    graph = graphOf(test);
    outcome = await agree(backend, test, { inputs: test.inputs, graph }, notes);
    const gradients = outcome === passed ? gradientsOf(test) : undefined;
    if (gradients) {
      graph = gradients.graph;
      outcome = await agree(backend, test, gradients, notes);
    }
  } catch (error) {
    outcome = failed(String(error));
  }
  const note = notes.length === 0 ? {} : { note: notes.join("; ") };
  if (outcome.status !== "failed") return { ...row, ...outcome, ...note };
  return { ...row, ...failed(`${outcome.error}; replay with fuzz: { seeds: [${seed}] }\n${graph ?? ""}`) };
}

/** Programs with operations that have no gradient on the way are not differentiated. */
function gradientsOf(test: Case): ReturnType<typeof gradientGraph> {
  try {
    return gradientGraph("fuzz", test);
  } catch (error) {
    if (GraphError.isInstance(error) && error.message.includes("has no gradient")) return undefined;
    throw error;
  }
}

async function agree(
  backend: Backend,
  test: Case,
  { inputs, graph }: { readonly inputs: Case["inputs"]; readonly graph: Graph },
  notes: string[],
): Promise<Outcome> {
  const compiled = new Compiled(backend, graph);
  try {
    for (const sizes of test.sizes) {
      const bound = compiled.bound(sizes);
      const values = makeInputs(test.name, inputs, sizes);
      const outputs = await compiled.run(bound, values);
      const expected = definition(bound, values);
      for (const [name, spec] of Object.entries(bound.outputs)) {
        const [actual, wanted] = [outputs[name], expected[name]];
        if (!actual || !wanted) return failed(`${name} is missing`);
        const numbers = fromTyped(spec, actual);
        const wrong = difference(spec.dtype, numbers, wanted.data);
        if (wrong === undefined) continue;
        const isFloat = kindOf(spec.dtype) === "float";
        const noise = isFloat ? noiseOf(bound, values, expected, name) : 0;
        if (nmseOf(numbers, wanted.data) > 1000 * noise) return failed(`${name}: ${wrong}${sizesText(sizes)}`);
        notes.push(`${name} is too sensitive to rounding to be compared${sizesText(sizes)}`);
      }
    }
    return passed;
  } catch (error) {
    return outcomeOf(error);
  } finally {
    compiled.close();
  }
}

/** How much an output moves, as NMSE, when every result is rounded, and when inputs move by a few units of float32. */
function noiseOf(graph: Graph, values: Values, expected: Values, output: string): number {
  const moved = Object.fromEntries(
    Object.entries(values).map(([name, { shape, data }]) => {
      const stream = new RandomStream(3, name);
      const change = (x: number, i: number) => x * (1 + 4e-7 * (stream.uniform(i) - 0.5));
      return [name, { shape, data: data instanceof Float64Array ? data.map(change) : data }];
    }),
  );
  const reference = expected[output]?.data ?? [];
  const [rounded, shifted] = [evaluate(graph, values, "rounded"), evaluate(graph, moved, "float64")];
  return Math.max(nmseOf(rounded[output]?.data ?? [], reference), nmseOf(shifted[output]?.data ?? [], reference));
}
