// A model on a backend, asked what it says of given tokens. Everything that is measured comes from these scores.
import {
  type Backend,
  type DeviceTensor,
  type Executable,
  type GraphInputs,
  type GraphOutputs,
  i32,
  inPrecision,
  type LanguageModel,
  type Precision,
  simplify,
} from "@sisa/core";

/** A row of tokens, and the tokens that are scored after some of its positions. */
export interface ScoredRow {
  /** What the model reads. */
  readonly ids: Int32Array;
  /** Positions after which a token is scored, increasing. */
  readonly places: Int32Array;
  /** The token to score after each of the places. */
  readonly targets: Int32Array;
}

/** What a model says of a row. */
export interface RowScore {
  /** Natural logarithm of the probability of all targets together. */
  readonly logProbability: number;
  /** How many targets are the most likely token at their place. */
  readonly correct: number;
}

/** A model on a backend. */
export interface ScorerOptions {
  /** What is scored with. */
  readonly model: LanguageModel;
  /** Where it runs. It is not closed. */
  readonly backend: Backend;
  /** By name: values, which are compiled in, or tensors on the backend, which are read anew at every run. */
  readonly parameters: Readonly<Record<string, Float32Array>> | Readonly<Record<string, DeviceTensor>>;
  /** Widths of weights and of what is computed, where the backend has them. Default "float32". */
  readonly precision?: Precision;
  /** Most tokens that are read at once; a longer row is read alone. Default 4096. */
  readonly tokensPerRun?: number;
}

type AnyExecutable = Executable<GraphInputs, GraphOutputs>;

/** Sizes of one run: rows, tokens a row, scored places of all rows. */
interface RunShape {
  readonly B: number;
  readonly T: number;
  readonly R: number;
}

/** Lengths that backends with bound graphs compile for are multiples of this, so that there are few of them. */
const lengthUnit = 64;
/** Executables that are kept; a backend with bound graphs needs one for each shape. */
const mostExecutables = 12;

/** Scores rows of tokens, those of one length together. Close it when done. */
export class Scorer implements AsyncDisposable {
  /** As given. */
  readonly model: LanguageModel;
  readonly #options: ScorerOptions;
  readonly #tokensPerRun: number;
  /** By shape, the most recently used last. */
  readonly #executables = new Map<string, Promise<AnyExecutable>>();

  constructor(options: ScorerOptions) {
    this.model = options.model;
    this.#options = options;
    this.#tokensPerRun = options.tokensPerRun ?? 4096;
  }

  /**
   * Which rows are scored together: indices into `rows`, shortest rows first. Rows of a batch have one length, up to the
   * padding of backends with bound graphs, so a row scores the same whatever stands beside it.
   */
  batches(rows: readonly ScoredRow[]): number[][] {
    const byLength = new Map<number, number[]>();
    rows.forEach((row, index) => {
      const length = this.#lengthFor(row.ids.length);
      const group = byLength.get(length);
      if (group === undefined) byLength.set(length, [index]);
      else group.push(index);
    });
    const groups = [...byLength].sort(([a], [b]) => a - b);
    return groups.flatMap(([length, indices]) => {
      const size = this.#rowsFor(length);
      return Array.from({ length: Math.ceil(indices.length / size) }, (_, batch) =>
        indices.slice(batch * size, (batch + 1) * size),
      );
    });
  }

  /** The scores of the rows of one batch of `batches`, in their order. @throws DeviceError where the run fails */
  async score(rows: readonly ScoredRow[]): Promise<RowScore[]> {
    const shape = this.#shapeFor(rows);
    const ids = new Int32Array(shape.B * shape.T);
    const places = new Int32Array(shape.R);
    const targets = new Int32Array(shape.R);
    let scored = 0;
    rows.forEach((row, index) => {
      ids.set(row.ids, index * shape.T);
      targets.set(row.targets, scored);
      for (const place of row.places) places[scored++] = index * shape.T + place;
    });
    const { logProbability, predicted } = await this.#run(shape, { ids, places, targets });
    let at = 0;
    return rows.map((row) => {
      let sum = 0;
      let correct = 0;
      for (const target of row.targets) {
        sum += logProbability[at] ?? Number.NaN;
        if (predicted[at] === target) correct++;
        at++;
      }
      return { logProbability: sum, correct };
    });
  }

  /** Every token sees those before it only, so what stands behind a row does not change it. Form `sdpa` is the exception. */
  #lengthFor(length: number): number {
    const { config } = this.model;
    const seesPadding = config.form === "sdpa" && config.mixers.includes("sisa");
    if (this.#options.backend.limits.symbolicDims || seesPadding) return length;
    return Math.max(length, Math.min(Math.ceil(length / lengthUnit) * lengthUnit, config.maximumLength));
  }

  #rowsFor(length: number): number {
    return Math.max(1, Math.floor(this.#tokensPerRun / length));
  }

  #shapeFor(rows: readonly ScoredRow[]): RunShape {
    const R = rows.reduce((sum, row) => sum + row.places.length, 0);
    const T = this.#lengthFor(Math.max(...rows.map((row) => row.ids.length)));
    if (this.#options.backend.limits.symbolicDims) return { B: rows.length, T, R };
    return { B: Math.max(rows.length, this.#rowsFor(T)), T, R: 2 ** Math.ceil(Math.log2(R)) };
  }

  async #run({ B, T, R }: RunShape, data: Readonly<Record<"ids" | "places" | "targets", Int32Array>>) {
    const { backend, parameters } = this.#options;
    const executable = await this.#executable({ B, T, R });
    const inputs = {
      ids: backend.tensor(i32(B, T), data.ids),
      places: backend.tensor(i32(R), data.places),
      targets: backend.tensor(i32(R), data.targets),
    };
    try {
      const outputs = executable.run(areValues(parameters) ? inputs : { ...parameters, ...inputs });
      const [logProbability = [], predicted = []] = await Promise.all([
        outputs.logProbability?.read(),
        outputs.predicted?.read(),
      ]);
      return { logProbability, predicted };
    } finally {
      for (const tensor of Object.values(inputs)) tensor.dispose();
    }
  }

  async #executable(shape: RunShape): Promise<AnyExecutable> {
    const symbolic = this.#options.backend.limits.symbolicDims;
    const key = symbolic ? "any" : `${shape.B} ${shape.T} ${shape.R}`;
    const known = this.#executables.get(key);
    this.#executables.delete(key);
    const executable = known ?? this.#compile(symbolic ? undefined : shape);
    this.#executables.set(key, executable);
    const [oldest] = this.#executables.keys();
    if (this.#executables.size > mostExecutables && oldest !== undefined) {
      const old = this.#executables.get(oldest);
      this.#executables.delete(oldest);
      (await old)?.close();
    }
    return await executable;
  }

  #compile(shape: RunShape | undefined): Promise<AnyExecutable> {
    const { backend, parameters, precision = "float32" } = this.#options;
    const graph = inPrecision(this.model.scoreGraph(), precision);
    const bound = simplify(shape === undefined ? graph : graph.bind({ ...shape }));
    const constants = areValues(parameters) ? { constants: parameters } : {};
    return backend.compile(bound, constants) as unknown as Promise<AnyExecutable>;
  }

  /** Frees the programs; the backend stays open. */
  async close(): Promise<void> {
    for (const executable of this.#executables.values()) (await executable).close();
    this.#executables.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function areValues(parameters: ScorerOptions["parameters"]): parameters is Readonly<Record<string, Float32Array>> {
  return Object.values(parameters).every((value) => value instanceof Float32Array);
}
