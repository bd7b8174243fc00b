// Finds out which operation first gave a number that is not finite: the step is run again with a count of such numbers
// for every intermediate as output.
import {
  type AnyTensor,
  type Backend,
  cast,
  concat,
  type DeviceTensor,
  finite,
  Graph,
  kindOf,
  type LanguageModel,
  not,
  type Precision,
  reshape,
  SisaError,
  simplify,
  specText,
  sum,
  type Tensor,
} from "@sisa/core";
import { gradientGraph } from "./training-graphs.ts";

/** Training cannot go on because loss or gradients are not finite. */
export class NotFiniteError extends SisaError {
  static override readonly code = "NOT_FINITE";
}

/** Counts, for every float of a gradient graph, how many of its elements are not finite. */
export class NotFiniteProbe {
  readonly #graph: Graph;
  readonly #watched: readonly AnyTensor[];
  readonly #forward: ReadonlySet<AnyTensor>;
  readonly #counts: (inputs: Readonly<Record<string, DeviceTensor>>) => Promise<ArrayLike<number>>;
  readonly #close: () => void;

  private constructor(
    graph: Graph,
    watched: readonly AnyTensor[],
    counts: (inputs: Readonly<Record<string, DeviceTensor>>) => Promise<ArrayLike<number>>,
    close: () => void,
  ) {
    this.#graph = graph;
    this.#watched = watched;
    this.#forward = ancestors(graph.outputTensors.value);
    this.#counts = counts;
    this.#close = close;
  }

  /**
   * @param precision that of the step
   * @param sizes     of a micro-batch
   */
  static async create(
    backend: Backend,
    model: LanguageModel,
    precision: Precision,
    sizes: { readonly B: number; readonly T: number },
  ): Promise<NotFiniteProbe> {
    const graph = simplify(gradientGraph(model, precision).bind(sizes));
    const inputs = Object.values(graph.inputTensors);
    const watched = [...inputs, ...graph.nodes.flatMap((node) => Object.values(node.outputs))].filter(
      ({ dtype }) => kindOf(dtype) === "float",
    );
    const counts = watched.map((tensor) => reshape(sum(cast(not(finite(tensor as Tensor)), "float32") as Tensor), [1]));
    const probe = new Graph(graph.inputTensors, { counts: concat(counts, { axis: 0 }) });
    const executable = await backend.compile(probe as Graph);
    const run = async (tensors: Readonly<Record<string, DeviceTensor>>): Promise<ArrayLike<number>> => {
      const { counts: found } = executable.run(tensors);
      return found === undefined ? [] : await found.read();
    };
    return new NotFiniteProbe(graph, watched, run, () => executable.close());
  }

  /**
   * What first went wrong with these inputs, or undefined where all is finite.
   * @param inputs `ids`, `targets` and the parameters, as they are kept in training
   */
  async explain(inputs: Readonly<Record<string, DeviceTensor>>): Promise<string | undefined> {
    const counts = await this.#counts(inputs);
    const index = this.#watched.findIndex((_, at) => (counts[at] ?? 0) > 0);
    const tensor = this.#watched[index];
    if (tensor === undefined) return undefined;
    const parameter = this.#inputName(tensor);
    const found = `${counts[index]} of its values`;
    if (parameter !== undefined) return `the parameter ${parameter} is not finite itself (${found})`;
    const nearest = this.#nearestParameter(tensor);
    const place = nearest === undefined ? "" : `, after ${nearest}`;
    const pass = this.#forward.has(tensor) ? "the forward pass" : "the gradients";
    return `${tensor.node.op.name} ${specText(tensor)} in ${pass}${place}, is the first that is not finite (${found})`;
  }

  #inputName(tensor: AnyTensor): string | undefined {
    return Object.entries(this.#graph.inputTensors).find(([, input]) => input === tensor)?.[0];
  }

  /** The parameter that was read last on the way to a tensor: it tells the layer. */
  #nearestParameter(tensor: AnyTensor): string | undefined {
    const seen = new Set<AnyTensor>();
    let front: readonly AnyTensor[] = [tensor];
    while (front.length > 0) {
      for (const candidate of front) {
        const name = this.#inputName(candidate);
        if (name !== undefined && name !== "ids" && name !== "targets") return name;
        seen.add(candidate);
      }
      front = front.flatMap(({ node }) => Object.values(node.inputs)).filter((next) => !seen.has(next));
    }
    return undefined;
  }

  close(): void {
    this.#close();
  }
}

function ancestors(tensor: AnyTensor | undefined): ReadonlySet<AnyTensor> {
  const found = new Set<AnyTensor>();
  const pending = tensor === undefined ? [] : [tensor];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (found.has(next)) continue;
    for (const output of Object.values(next.node.outputs)) found.add(output);
    pending.push(...Object.values(next.node.inputs));
  }
  return found;
}
