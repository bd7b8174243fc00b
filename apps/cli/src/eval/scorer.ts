// A model on a backend for evaluation: what it predicts after each token, and its loss. Nothing is cached between calls.
import {
  argmax,
  type Backend,
  type DeviceTensor,
  type Executable,
  Graph,
  type GraphInputs,
  type GraphOutputs,
  i32,
  type LanguageModel,
  simplify,
  type Tensor,
} from "@sisa/core";

export interface ScorerOptions {
  readonly model: LanguageModel;
  readonly parameters: Readonly<Record<string, Float32Array>>;
  readonly backend: Backend;
}

export class Scorer implements AsyncDisposable {
  readonly model: LanguageModel;
  readonly #options: ScorerOptions;
  /** By program and, where the backend asks for bound sizes, by size. */
  readonly #executables = new Map<string, Promise<Executable<GraphInputs, GraphOutputs>>>();

  constructor(options: ScorerOptions) {
    this.model = options.model;
    this.#options = options;
  }

  /** The most likely token after each of the ids. */
  async predictions(ids: readonly number[]): Promise<Int32Array> {
    const value = await this.#run("predictions", [1, ids.length], { ids: Int32Array.from(ids) });
    return Int32Array.from(value);
  }

  /** Mean cross-entropy in nats of targets [B,T] after ids [B,T]. */
  async loss(ids: Int32Array, targets: Int32Array, rows: number): Promise<number> {
    const value = await this.#run("loss", [rows, ids.length / rows], { ids, targets });
    return value[0] ?? Number.NaN;
  }

  async #run(
    program: "predictions" | "loss",
    shape: readonly [B: number, T: number],
    data: Readonly<Record<string, Int32Array>>,
  ): Promise<ArrayLike<number> & Iterable<number>> {
    const { backend } = this.#options;
    const executable = await this.#executable(program, shape);
    const inputs: Record<string, DeviceTensor> = {};
    try {
      for (const [name, values] of Object.entries(data)) inputs[name] = backend.tensor(i32(...shape), values);
      const { value } = executable.run(inputs);
      return (await value?.read()) ?? [];
    } finally {
      for (const tensor of Object.values(inputs)) tensor.dispose();
    }
  }

  #executable(program: "predictions" | "loss", [B, T]: readonly [number, number]) {
    const { backend, parameters } = this.#options;
    const symbolic = backend.limits.symbolicDims;
    const key = symbolic ? program : `${program} ${B} ${T}`;
    const known = this.#executables.get(key);
    if (known !== undefined) return known;
    const graph = program === "loss" ? this.#lossGraph() : this.#predictionGraph();
    const compiled = backend.compile(simplify(symbolic ? graph : graph.bind({ B, T })), { constants: parameters });
    this.#executables.set(key, compiled);
    return compiled;
  }

  #lossGraph(): Graph {
    return this.model.lossGraph() as unknown as Graph;
  }

  #predictionGraph(): Graph {
    const { inputTensors, outputTensors } = this.model.logitsGraph();
    return new Graph(inputTensors, { value: argmax(outputTensors.logits as Tensor) });
  }

  async close(): Promise<void> {
    for (const executable of this.#executables.values()) (await executable).close();
    this.#executables.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
