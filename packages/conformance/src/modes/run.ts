// Runs graphs on a backend and compares what comes back with the reference in float64.

import {
  type Backend,
  type DeviceTensor,
  type Executable,
  evaluate,
  type Graph,
  type GraphInputs,
  type GraphOutputs,
  specText,
  type TensorSpec,
  type TypedArray,
  UnsupportedOpError,
} from "@sisa/core";
import type { Sizes, Tolerance, Values } from "../case.ts";
import { difference } from "../compare.ts";
import { fromTyped, sameBits, toTyped } from "../data.ts";
import { bindSizes } from "../program.ts";
import type { Status } from "../result.ts";

export interface Outcome {
  readonly status: Status;
  readonly error?: string;
}

export const passed: Outcome = { status: "passed" };

export function failed(error: string): Outcome {
  return { status: "failed", error };
}

/** What an error thrown by a backend means. */
export function outcomeOf(error: unknown): Outcome {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return UnsupportedOpError.isInstance(error) ? { status: "unsupported", error: message } : failed(message);
}

/** A graph compiled once where the backend takes symbols, else once for all sizes that it is run at. */
export class Compiled {
  readonly #backend: Backend;
  readonly #graph: Graph;
  readonly #executables = new Map<Graph, Executable<GraphInputs, GraphOutputs>>();

  constructor(backend: Backend, graph: Graph) {
    this.#backend = backend;
    this.#graph = graph;
  }

  /** The graph at these sizes. */
  bound(sizes: Sizes): Graph {
    return bindSizes(this.#graph, sizes);
  }

  /**
   * Runs the graph and reads every output.
   * @throws Error where outputs look other than the graph says, or an input was changed
   */
  async run(bound: Graph, values: Values): Promise<{ readonly [output: string]: TypedArray }> {
    const graph = this.#backend.limits.symbolicDims ? this.#graph : bound;
    let executable = this.#executables.get(graph);
    if (executable === undefined) {
      executable = await this.#backend.compile(graph);
      this.#executables.set(graph, executable);
    }
    const inputs: Record<string, DeviceTensor> = {};
    try {
      const given: Record<string, TypedArray> = {};
      for (const [name, spec] of Object.entries(bound.inputs)) {
        given[name] = toTyped(spec, inputOf(values, name));
        inputs[name] = this.#backend.tensor(spec, given[name]);
      }
      const outputs = executable.run(inputs);
      const results: Record<string, TypedArray> = {};
      for (const [name, spec] of Object.entries(bound.outputs)) {
        const output = outputs[name];
        if (output === undefined) throw new Error(`output "${name}" is missing`);
        if (specText(output.spec) !== specText(spec)) {
          throw new Error(`output "${name}" is ${specText(output.spec)}, expected ${specText(spec)}`);
        }
        results[name] = await output.read();
      }
      for (const [name, tensor] of Object.entries(inputs)) {
        const now = await tensor.read();
        if (!sameBits(now, given[name] ?? now)) throw new Error(`input "${name}" was changed by the run`);
      }
      return results;
    } finally {
      for (const tensor of Object.values(inputs)) tensor.dispose();
    }
  }

  close(): void {
    for (const executable of this.#executables.values()) executable.close();
  }
}

function inputOf(values: Values, name: string) {
  const value = values[name];
  if (value === undefined) throw new Error(`no value was made for input "${name}"`);
  return value;
}

/** What is wrong with the outputs of a bound graph, or undefined. */
export function compareOutputs(
  graph: { readonly outputs: { readonly [name: string]: TensorSpec } },
  actual: { readonly [output: string]: TypedArray },
  expected: Values,
  toleranceOf: (output: string) => Tolerance | undefined,
): string | undefined {
  for (const [name, spec] of Object.entries(graph.outputs)) {
    const values = actual[name];
    const wanted = expected[name];
    if (values === undefined || wanted === undefined) return `output "${name}" is missing`;
    const wrong = difference(spec.dtype, fromTyped(spec, values), wanted.data, toleranceOf(name));
    if (wrong !== undefined) return `${name}: ${wrong}`;
  }
  return undefined;
}

/** The outputs by the definition, every float in full, or with every result rounded. */
export function definition(graph: Graph, values: Values, rounded = false): Values {
  return evaluate(graph, values, rounded ? "rounded" : "float64");
}

/** Sizes for messages: " at T=5, B=2". */
export function sizesText(sizes: Sizes): string {
  const entries = Object.entries(sizes);
  return entries.length === 0 ? "" : ` at ${entries.map(([name, size]) => `${name}=${size}`).join(", ")}`;
}
