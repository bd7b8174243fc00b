// Mode grad: gradients on a backend against those of the reference in float64. That those are right is for
// `definition.ts`, which compares them with finite differences.

import { type Backend, type Graph, valueAndGrad } from "@sisa/core";
import type { Case } from "../case.ts";
import { makeInputs } from "../data.ts";
import { noGradientReason } from "../operations.ts";
import { gradientInputs, graphOf, lossOf, specsOf, traceProgram } from "../program.ts";
import { Compiled, compareOutputs, definition, failed, type Outcome, outcomeOf, passed, sizesText } from "./run.ts";

/** The gradients of a case's weighted sum of outputs; undefined for cases that have none. */
export function gradientGraph(
  op: string,
  test: Case,
): { readonly inputs: Case["inputs"]; readonly graph: Graph } | undefined {
  const graph = graphOf(test);
  const wrt = noGradientReason(op, graph) === undefined ? gradientInputs(test, graph) : [];
  if (wrt.length === 0) return undefined;
  const loss = lossOf(test, graph);
  const forward = traceProgram(specsOf(loss.inputs), loss.program);
  return { inputs: loss.inputs, graph: differentiate(forward, wrt) };
}

/** `valueAndGrad` for graphs whose inputs are known by name only. */
export function differentiate(graph: Graph, wrt: readonly string[]): Graph {
  return valueAndGrad(graph as Parameters<typeof valueAndGrad>[0], { wrt }) as unknown as Graph;
}

/** Runs one case at all its sizes; undefined where it has no gradients. */
export async function grad(backend: Backend, op: string, test: Case): Promise<Outcome | undefined> {
  const program = gradientGraph(op, test);
  if (program === undefined) return undefined;
  const compiled = new Compiled(backend, program.graph);
  try {
    for (const sizes of test.sizes) {
      const bound = compiled.bound(sizes);
      const values = makeInputs(`${op}/${test.name}`, program.inputs, sizes);
      const outputs = await compiled.run(bound, values);
      const wrong = compareOutputs(bound, outputs, definition(bound, values), (output) =>
        output === "value" ? lossTolerance : test.gradientTolerance,
      );
      if (wrong !== undefined) return failed(wrong + sizesText(sizes));
    }
    return passed;
  } catch (error) {
    return outcomeOf(error);
  } finally {
    compiled.close();
  }
}

/** The loss is a sum of terms of both signs, which may nearly cancel; mode forward compares what it is made of. */
const lossTolerance = { absolute: 0.05 };
