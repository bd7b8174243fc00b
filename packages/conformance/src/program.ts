// Graphs of cases: the program itself, and the scalar whose gradients are compared.

import {
  type AnyTensor,
  add,
  cast,
  Dim,
  elementsOf,
  expandComposites,
  type Graph,
  kindOf,
  mul,
  type Op,
  sum,
  type Tensor,
  type TensorSpec,
  trace,
} from "@sisa/core";
import { type Case, floats, type InputRecipe, type Program, type Sizes } from "./case.ts";

type Specs = { readonly [name: string]: TensorSpec };

export function specsOf(recipes: { readonly [name: string]: InputRecipe }): Specs {
  return Object.fromEntries(Object.entries(recipes).map(([name, { spec }]) => [name, spec]));
}

/** The case's program, with the symbols it is written with. */
export function graphOf({ inputs, program }: Pick<Case, "inputs" | "program">): Graph {
  return traceProgram(specsOf(inputs), program);
}

/** Traces a program whose inputs are known by name only. */
export function traceProgram(specs: Specs, program: Program): Graph {
  return trace(specs, program) as unknown as Graph;
}

/** Inputs that a case takes gradients by. */
export function gradientInputs(test: Case, graph: Graph): readonly string[] {
  if (test.gradients) return test.gradients;
  const hasFloat = Object.values(graph.outputs).some(({ dtype }) => kindOf(dtype) === "float");
  if (test.ieee || test.fails || !hasFloat) return [];
  return Object.keys(graph.inputs).filter((name) => kindOf(graph.inputs[name]?.dtype ?? "bool") === "float");
}

/** In front of the names of the inputs that hold the gradients of outputs. */
export const weightPrefix = "weight.";

/** A case whose only output is a scalar: all float outputs times random weights, summed. */
export function lossOf(test: Case, graph: Graph): Pick<Case, "inputs" | "program"> {
  const outputs = Object.entries(graph.outputs).filter(([, { dtype }]) => kindOf(dtype) === "float");
  const weights = outputs.map(([name, { dtype, shape }]): [string, InputRecipe] => [
    weightPrefix + name,
    floats(shape, { dtype: dtype === "float64" ? "float64" : "float32" }),
  ]);
  return {
    inputs: { ...test.inputs, ...Object.fromEntries(weights) },
    program(inputs) {
      const own = Object.fromEntries(Object.entries(inputs).filter(([name]) => name in test.inputs));
      const result = test.program(own);
      const results = ("node" in result ? { value: result } : result) as { readonly [name: string]: AnyTensor };
      const terms = outputs.map(([name]) => {
        const weight = inputs[weightPrefix + name] as Tensor;
        return cast(sum(mul(cast(results[name] as AnyTensor, weight.dtype) as Tensor, weight)), "float32") as Tensor;
      });
      return terms.reduce((a, b) => add(a, b));
    },
  };
}

/** The graph at these sizes. Sizes of symbols that it does not have are left out. */
export function bindSizes(graph: Graph, sizes: Sizes): Graph {
  const known = Object.fromEntries(Object.entries(sizes).filter(([name]) => graph.symbols.has(name)));
  return Object.keys(known).length > 0 ? graph.bind(known) : graph;
}

/**
 * Floating-point operations of a graph with bound sizes: what operations say of themselves, else the sum over their
 * compositions, else one for each element of the outputs.
 */
export function flopsOf(graph: Graph): number {
  const saysNothing = (op: Op) => op.flops === undefined;
  return expandComposites(graph, saysNothing).nodes.reduce((total, { op, inputs, attributes, outputs }) => {
    const elements = () =>
      Object.values(outputs).reduce((count, { shape }) => count.plus(elementsOf(shape)), Dim.of(0));
    const flops = op.flops?.(inputs, attributes, outputs) ?? elements();
    return total + (flops.value ?? Number.NaN);
  }, 0);
}
