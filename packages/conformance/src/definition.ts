// Whether the reference itself is right: its values against independent formulas, its gradients against finite
// differences and against differentiated compositions, and passes against what they must not change.

import {
  evaluate,
  expandComposites,
  type Graph,
  GraphError,
  kindOf,
  type NdArray,
  RandomStream,
  simplify,
  specText,
  verify,
} from "@sisa/core";
import type { Case, Refusal, Sizes, Values } from "./case.ts";
import { difference, nmseOf } from "./compare.ts";
import { makeInputs } from "./data.ts";
import { differentiate, gradientGraph } from "./modes/grad.ts";
import { sizesText } from "./modes/run.ts";
import { noGradientReason, operations } from "./operations.ts";
import { bindSizes, gradientInputs, graphOf, lossOf, specsOf, traceProgram, weightPrefix } from "./program.ts";

type Problem = string | undefined;

/** The first problem over all sizes of a case. */
function atAllSizes(test: Case, check: (sizes: Sizes) => Problem): Problem {
  for (const sizes of test.sizes) {
    const problem = check(sizes);
    if (problem !== undefined) return problem + sizesText(sizes);
  }
  return undefined;
}

/** A case of an operation must hold a node of it, and a case with symbols must have sizes for all of them. */
export function checkCase(op: string, test: Case): Problem {
  const graph = graphOf(test);
  const holds = op === "input" || !operations.has(op) || graph.nodes.some((node) => node.op.name === op);
  if (!holds) return `its graph holds no ${op}`;
  for (const sizes of test.sizes) {
    const missing = [...graph.symbols].filter((symbol) => sizes[symbol] === undefined);
    if (missing.length > 0) return `sizes of ${missing.join(", ")} are missing`;
  }
  return undefined;
}

/** What the reference computes in float64 must be what the case's own formula says. */
export function checkExpected(op: string, test: Case): Problem {
  const { expected } = test;
  if (expected === undefined) return undefined;
  const graph = graphOf(test);
  return atAllSizes(test, (sizes) => {
    const values = makeInputs(`${op}/${test.name}`, test.inputs, sizes);
    const bound = bindSizes(graph, sizes);
    const actual = evaluate(bound, values, "float64");
    for (const [name, wanted] of Object.entries(expected(values))) {
      const spec = bound.outputs[name];
      const value = actual[name];
      if (spec === undefined || value === undefined) return `has no output "${name}"`;
      const dtype = kindOf(spec.dtype) === "float" ? "float64" : spec.dtype;
      const angle = test.tolerances?.[name]?.angle;
      const wrong = difference(
        dtype,
        value.data,
        wanted,
        angle === undefined ? { nmse: test.expectedNmse ?? 1e-20 } : { angle },
      );
      if (wrong !== undefined) return `${name}: ${wrong}`;
    }
    return undefined;
  });
}

/** Passes keep what a graph computes, bit for bit, and keep it well formed; its gradients' graph too. */
export function checkPasses(op: string, test: Case): Problem {
  if (test.fails) return undefined;
  const gradients = gradientGraph(op, test);
  const programs = [{ inputs: test.inputs, graph: graphOf(test) }, ...(gradients ? [gradients] : [])];
  return atAllSizes(test, (sizes) => {
    for (const { inputs, graph } of programs) {
      const bound = bindSizes(graph, sizes);
      const values = makeInputs(`${op}/${test.name}`, inputs, sizes);
      const before = evaluate(bound, values, "rounded");
      verify(bound);
      const expanded = expandComposites(bound, () => true);
      const passes = { simplify: simplify(bound), expand: expanded, both: simplify(expanded) };
      for (const [name, changed] of Object.entries(passes)) {
        verify(changed);
        const after = evaluate(changed, values, "rounded");
        for (const [output, { data }] of Object.entries(before)) {
          const spec = changed.outputs[output];
          if (spec === undefined || specText(spec) !== specText(bound.outputs[output] ?? spec)) {
            return `${name} changed the spec of ${output}`;
          }
          const wrong = difference(spec.dtype, after[output]?.data ?? [], data, { exact: true });
          if (wrong !== undefined) return `${name} changed ${output}: ${wrong}`;
        }
      }
    }
    return undefined;
  });
}

/** Gradients by the rules of the operations against finite differences and against differentiated compositions. */
export function checkGradients(op: string, test: Case): Problem {
  const graph = graphOf(test);
  const wrt = gradientInputs(test, graph);
  if (wrt.length === 0) return undefined;
  const loss = lossOf(test, graph);
  const forward = traceProgram(specsOf(loss.inputs), loss.program);
  const reason = noGradientReason(op, forward);
  if (reason !== undefined) return checkRefusedGradient(op, reason, forward, wrt);
  const gradients = differentiate(forward, wrt);
  for (const name of wrt) {
    const [own, input] = [gradients.outputs[`grad.${name}`], forward.inputs[name]];
    if (!own || !input || specText(own) !== specText(input)) {
      return `grad.${name} is ${own && specText(own)}, its input ${input && specText(input)}`;
    }
  }
  const composed = differentiate(
    expandComposites(forward, () => true),
    wrt,
  );
  return atAllSizes(test, (sizes) => {
    const values = makeInputs(`${op}/${test.name}`, loss.inputs, sizes);
    const results = evaluate(bindSizes(gradients, sizes), values, "float64");
    const alternatives = evaluate(bindSizes(composed, sizes), values, "float64");
    const evaluated = expandComposites(bindSizes(forward, sizes), () => true);
    const weights = Object.fromEntries(
      Object.entries(values).flatMap(([name, value]) =>
        name.startsWith(weightPrefix) ? [[name.slice(weightPrefix.length), value]] : [],
      ),
    );
    for (const [name, wanted] of Object.entries(test.expectedGradients?.(values, weights) ?? {})) {
      const wrong = difference("float64", results[`grad.${name}`]?.data ?? [], wanted, { nmse: 1e-20 });
      if (wrong !== undefined) return `grad.${name}: ${wrong}`;
    }
    for (const name of wrt) {
      const gradient = results[`grad.${name}`];
      const alternative = alternatives[`grad.${name}`];
      if (!gradient || !alternative) return `grad.${name} is missing`;
      const apart = nmseOf(gradient.data, alternative.data);
      if (!(apart < 1e-18) && !bothTiny(gradient, alternative)) {
        return `grad.${name} differs from that of the composition, NMSE ${apart.toExponential(1)}`;
      }
      const wrong = compareDifferences(`${op}/${test.name}/${name}`, test, evaluated, values, name, gradient);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  });
}

/** Gradients that are zero but for rounding. */
function bothTiny(a: NdArray, b: NdArray): boolean {
  const tiny = (value: number) => Math.abs(value) < 1e-12;
  return [...a.data].every(tiny) && [...b.data].every(tiny);
}

function checkRefusedGradient(op: string, reason: string, forward: Graph, wrt: readonly string[]): Problem {
  const expected = `valueAndGrad: ${op} has no gradient: ${reason}`;
  try {
    differentiate(forward, wrt);
  } catch (error) {
    if (GraphError.isInstance(error) && error.message === expected) return undefined;
    return `expected GraphError "${expected}", got ${error}`;
  }
  return `expected GraphError "${expected}", got a gradient`;
}

/** Four-point differences along one random direction of all elements, and along some single elements. */
function compareDifferences(
  label: string,
  test: Case,
  graph: Graph,
  values: Values,
  input: string,
  gradient: NdArray,
): Problem {
  const value = values[input];
  const { differences = {} } = test;
  if (value === undefined || value.data.length === 0 || differences === "none") return undefined;
  const { step = 1e-4, elements = 3, relative = 1e-6 } = differences;
  const stream = new RandomStream(2, label);
  const count = value.data.length;
  const directions = [
    { name: "a random direction", direction: Float64Array.from(stream.normal(count)) },
    ...Array.from({ length: Math.min(elements, count) }, (_, index) => {
      const place = count <= elements ? index : stream.below(count, 4 * count + index);
      const direction = new Float64Array(count);
      direction[place] = 1;
      return { name: `element ${place}`, direction };
    }),
  ];
  const lossAt = (direction: Float64Array, distance: number) => {
    const moved = { shape: value.shape, data: value.data.map((x, i) => x + distance * (direction[i] ?? 0)) };
    return evaluate(graph, { ...values, [input]: moved }, "float64").value?.data[0] ?? Number.NaN;
  };
  for (const { name, direction } of directions) {
    const analytic = direction.reduce((total, d, i) => total + d * (gradient.data[i] ?? 0), 0);
    const [a, b, c, d] = [-2, -1, 1, 2].map((times) => lossAt(direction, times * step)) as [
      number,
      number,
      number,
      number,
    ];
    const numeric = (a - 8 * b + 8 * c - d) / (12 * step);
    const noise = 1e-9 * Math.max(1, Math.abs(a));
    const allowed = relative * Math.max(Math.abs(analytic), Math.abs(numeric)) + noise;
    if (!(Math.abs(analytic - numeric) <= allowed)) {
      return `grad.${input} along ${name} is ${analytic}, by differences ${numeric}`;
    }
  }
  return undefined;
}

/** A refused use must throw this error with this message, and name the operation first. */
export function checkRefusal({ inputs, program, error, message }: Refusal): Problem {
  try {
    traceProgram(inputs, program);
  } catch (thrown) {
    if (!error.isInstance(thrown)) return `expected ${error.name}, got ${thrown}`;
    const text = (thrown as Error).message;
    return text === message ? undefined : `expected "${message}", got "${text}"`;
  }
  return `expected ${error.name} "${message}", but it was accepted`;
}
