// A model in training on a backend: steps, held-out losses, and its state in and out. Files, progress and the order of
// events are in train.ts.
import {
  type Backend,
  bool,
  ConfigError,
  type DeviceTensor,
  type Executable,
  f32,
  type GraphInputs,
  type GraphOutputs,
  i32,
  initialize,
  type LanguageModel,
  roundTo,
  shadowName,
  sizesOf,
} from "@sisa/core";
import { type ResolvedSettings, scheduleOf } from "./config/settings.ts";
import type { Batch } from "./data/batches.ts";
import { type HeldOutBatches, HeldOutEvaluator, type HeldOutLoss } from "./held-out.ts";
import type { StepRecord } from "./metrics/metrics.ts";
import { NotFiniteProbe } from "./not-finite.ts";
import { learningRateAt } from "./optimizer/schedule.ts";
import {
  accumulateGraph,
  isRounded,
  isScaled,
  keptSpecs,
  lossScaling,
  resized,
  shadowGraph,
  shadowSpecs,
  stateName,
  updateGraph,
} from "./training-graphs.ts";

type Tensors = Readonly<Record<string, DeviceTensor>>;
type AnyExecutable = Executable<GraphInputs, GraphOutputs>;

/** A model, what its steps read, and how they are taken. */
export interface TrainerOptions {
  /** What is trained. */
  readonly model: LanguageModel;
  /** Where it runs. It is not closed. */
  readonly backend: Backend;
  /** From `resolveSettings`. */
  readonly settings: ResolvedSettings;
  /** The micro-batch of a step; a pure function of both numbers, which count from 0. */
  readonly batches: (step: number, microBatch: number) => Batch | Promise<Batch>;
  /** What `evaluate` measures on. Default none: `evaluate` is refused. */
  readonly heldOut?: HeldOutBatches;
  /** First values, row major. Default: the model's initialisation with the seed of the settings. */
  readonly parameters?: Readonly<Record<string, Float32Array>>;
  /** Milliseconds of a clock that never goes back. Default: `performance.now`. */
  readonly now?: () => number;
}

/** How far a run has come. */
export interface TrainerProgress {
  /** Steps done, skipped ones included. */
  readonly step: number;
  /** Steps that changed nothing because they were not finite. */
  readonly skipped: number;
  /** Of training, those before a resume included. */
  readonly elapsedSeconds: number;
  /** Only in precision `float16`. */
  readonly lossScale?: {
    /** What the loss is multiplied by. */
    readonly scale: number;
    /** Steps that took effect since that changed. */
    readonly steps: number;
  };
}

/** A tensor of the state: its sizes, and its values when asked for. */
export interface StateTensor {
  /** Sizes of the axes. */
  readonly shape: readonly number[];
  /** A copy of the values, row major. */
  read(): Promise<Float32Array>;
}

/** What `advance` did. */
export interface Advance {
  /** One for each step. */
  readonly records: readonly StepRecord[];
  /** Why the last of the steps was skipped, where it was: the first operation that was not finite. */
  readonly skippedBecause?: string;
}

/**
 * A model in training. `advance` runs steps; everything else may be called between.
 * State that decides what comes next: parameters, both moments, and two numbers (steps, skipped steps); in precision
 * `float16` also the scale of the loss and its age.
 */
export class Trainer implements AsyncDisposable {
  readonly #options: TrainerOptions;
  readonly #accumulate: AnyExecutable;
  /** The parameters that the accumulating program reads, or their narrow copies. */
  readonly #accumulateInputs: Tensors;
  readonly #update: AnyExecutable;
  readonly #state: Tensors;
  readonly #inputs: { readonly [N in "ids" | "targets" | "first" | "rates"]: DeviceTensor };
  readonly #now: () => number;
  #evaluator: HeldOutEvaluator | undefined;
  #step = 0;
  #skipped = 0;
  #lossScale: TrainerProgress["lossScale"];
  #secondsBefore = 0;
  #startedAt: number | undefined;

  private constructor(
    options: TrainerOptions,
    accumulate: AnyExecutable,
    reads: readonly string[],
    update: AnyExecutable,
    state: Tensors,
  ) {
    const { backend, settings } = options;
    this.#options = options;
    this.#accumulate = accumulate;
    this.#accumulateInputs = Object.fromEntries(Object.entries(state).filter(([name]) => reads.includes(name)));
    this.#update = update;
    this.#state = state;
    if (isScaled(settings.precision)) this.#lossScale = { scale: lossScaling.first, steps: 0 };
    this.#now = options.now ?? (() => performance.now());
    const batch = i32(settings.microBatchSize, settings.sequenceLength);
    this.#inputs = {
      ids: backend.tensor(batch),
      targets: backend.tensor(batch),
      first: backend.tensor(bool()),
      rates: backend.tensor(f32(3)),
    };
  }

  /**
   * Compiles the programs of a step and puts the first values on the device.
   * @throws ConfigError where sequences are longer than the model allows, or a parameter is missing; GraphError where
   *   one is of another size; UnsupportedOpError where the backend lacks an operation or the precision
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const { model, backend, settings } = options;
    const { maximumLength } = model.config;
    if (settings.sequenceLength > maximumLength) {
      throw new ConfigError(
        `sequenceLength: expected at most the model's maximumLength (${maximumLength}), got ${settings.sequenceLength}`,
      );
    }
    const accumulate = accumulateGraph(
      model,
      settings.gradientAccumulation,
      settings.precision,
      settings.rematerialize,
    );
    const update = updateGraph(model, settings, accumulate.shadowed);
    const sizes = { B: settings.microBatchSize, T: settings.sequenceLength };
    const accumulateProgram = await backend.compile(accumulate.graph.bind(sizes), { state: accumulate.state });
    const updateProgram = await backend.compile(update.graph, { state: update.state });
    const state: Record<string, DeviceTensor> = { [stateName.halted]: backend.tensor(bool()) };
    const sums = Object.keys(accumulate.state);
    if (sums.includes(stateName.loss)) state[stateName.loss] = backend.tensor(f32());
    const values = options.parameters ?? initialize(model, settings.seed);
    for (const [name, spec] of Object.entries(keptSpecs(model, settings.precision))) {
      const given = values[name];
      if (given === undefined) throw new ConfigError(`parameters: expected a value for ${name}, got nothing`);
      const value = resized(given, model.parameters[name]?.shape ?? [], sizesOf(spec.shape));
      const first = isRounded(name, settings.precision) ? value.map((x) => roundTo("bfloat16", x)) : value;
      state[name] = backend.tensor(spec, first);
      for (const make of [stateName.firstMoment, stateName.secondMoment]) state[make(name)] = backend.tensor(spec);
      const sum = stateName.gradient(name);
      if (sums.includes(sum)) state[sum] = backend.tensor(spec);
    }
    for (const [name, spec] of Object.entries(shadowSpecs(model, accumulate.shadowed, settings.precision))) {
      state[name] = backend.tensor(spec);
    }
    if (isScaled(settings.precision)) {
      state[stateName.lossScale] = backend.tensor(f32(), Float32Array.of(lossScaling.first));
      state[stateName.stepsAtScale] = backend.tensor(f32());
    }
    const trainer = new Trainer(options, accumulateProgram, Object.keys(accumulate.graph.inputs), updateProgram, state);
    await trainer.#copyShadows();
    return trainer;
  }

  /** As given. */
  get model(): LanguageModel {
    return this.#options.model;
  }

  /** As given. */
  get settings(): ResolvedSettings {
    return this.#options.settings;
  }

  /** How far it has come. */
  get progress(): TrainerProgress {
    const scale = this.#lossScale && { lossScale: this.#lossScale };
    return { step: this.#step, skipped: this.#skipped, elapsedSeconds: this.#elapsed(), ...scale };
  }

  #elapsed(): number {
    return this.#secondsBefore + (this.#startedAt === undefined ? 0 : (this.#now() - this.#startedAt) / 1000);
  }

  /**
   * Runs steps and reads their losses back once, at the end. A step that is not finite changes nothing and ends the
   * advance early: it counts as done and is explained; the steps after it were not taken yet.
   *
   * @param most how many steps at most, at least 1
   * @returns a record for each step done, at least one
   * @throws DeviceError where a run fails; what `batches` throws
   */
  async advance(most: number): Promise<Advance> {
    this.#startedAt ??= this.#now();
    const from = this.#elapsed();
    const reports: DeviceTensor[] = [];
    for (let index = 0; index < most; index++) reports.push(await this.#enqueue(this.#step + index));
    const values = await Promise.all(reports.map((report) => report.read()));
    for (const report of reports) report.dispose();
    // A step after one that was not finite found the device halted, and did nothing.
    const failed = values.findIndex((report) => report[2] !== 1);
    const done = failed < 0 ? values : values.slice(0, failed + 1);
    const seconds = this.#elapsed() - from;

    let skippedBecause: string | undefined;
    const [loss = Number.NaN, , , scale, steps = 0] = done.at(-1) ?? [];
    const before = done.at(-2)?.[3] ?? this.#lossScale?.scale ?? 0;
    if (scale !== undefined) this.#lossScale = { scale, steps };
    if (failed >= 0) {
      const overflows = Number.isFinite(loss) && scale !== undefined && scale < before;
      skippedBecause = overflows
        ? `gradients of the loss times ${scale * 2} are beyond float16; it is scaled by ${scale} from here on`
        : await this.#explain(this.#step + failed);
      this.#options.backend.write(this.#tensor(stateName.halted), Uint8Array.of(0));
    }
    const records = done.map((report, index): StepRecord => {
      this.#step++;
      if (index === failed) this.#skipped++;
      return {
        type: "step",
        step: this.#step,
        tokens: this.#step * this.settings.batchTokens,
        loss: report[0] ?? Number.NaN,
        learningRate: learningRateAt(this.#step - 1, scheduleOf(this.settings)),
        gradNorm: report[1] ?? Number.NaN,
        tokensPerSecond: (values.length * this.settings.batchTokens) / seconds,
        elapsedSeconds: from + ((index + 1) / values.length) * seconds,
        skipped: this.#skipped,
      };
    });
    return skippedBecause === undefined ? { records } : { records, skippedBecause };
  }

  /** Puts one step in the backend's queue; returns its report, kept. */
  async #enqueue(step: number): Promise<DeviceTensor> {
    const { backend, settings, batches } = this.#options;
    const { ids, targets, first, rates } = this.#inputs;
    const microBatches = settings.gradientAccumulation;
    let sums: Tensors = {};
    for (let micro = 0; micro < microBatches; micro++) {
      const batch = await batches(step, micro);
      backend.write(ids, batch.ids);
      backend.write(targets, batch.targets);
      const inputs = { ...this.#accumulateInputs, ids, targets };
      if (microBatches === 1) {
        sums = this.#accumulate.run(inputs);
      } else {
        backend.write(first, Uint8Array.of(micro === 0 ? 1 : 0));
        sums = this.#accumulate.run({ ...inputs, ...this.#sums(), first });
      }
    }
    const { beta1, beta2 } = settings.optimizer;
    // Steps that were skipped do not count for the bias correction, as in torch.
    const updates = step - this.#skipped + 1;
    const learningRate = learningRateAt(step, scheduleOf(settings));
    backend.write(rates, Float32Array.of(learningRate, 1 - beta1 ** updates, 1 - beta2 ** updates));
    const { report } = this.#update.run({ ...this.#state, ...sums, rates });
    return (report as DeviceTensor).keep();
  }

  #parameters(): Record<string, DeviceTensor> {
    return Object.fromEntries(Object.keys(this.model.parameters).map((name) => [name, this.#tensor(name)]));
  }

  /** Makes the narrow copies of the parameters anew. */
  async #copyShadows(): Promise<void> {
    const shadowed = Object.keys(this.model.parameters).filter((name) => this.#state[shadowName(name)]);
    if (shadowed.length === 0) return;
    const { graph, state } = shadowGraph(this.model, shadowed, this.settings.precision);
    const copy = await this.#options.backend.compile(graph, { state });
    const names = Object.keys(graph.inputs);
    copy.run(Object.fromEntries(names.map((name) => [name, this.#tensor(name)])));
    copy.close();
  }

  /** The sums over micro-batches, where there are several. */
  #sums(): Record<string, DeviceTensor> {
    const names = [stateName.loss, ...Object.keys(this.model.parameters).map(stateName.gradient)];
    return Object.fromEntries(names.map((name) => [name, this.#tensor(name)]));
  }

  #tensor(name: string): DeviceTensor {
    return this.#state[name] as DeviceTensor;
  }

  /** Which operation was first not finite in a step whose parameters are still on the device. */
  async #explain(step: number): Promise<string> {
    const { backend, settings, batches, model } = this.#options;
    const { ids, targets } = this.#inputs;
    const probe = await NotFiniteProbe.create(backend, model, settings.precision, {
      B: settings.microBatchSize,
      T: settings.sequenceLength,
    });
    try {
      for (let micro = 0; micro < settings.gradientAccumulation; micro++) {
        const batch = await batches(step, micro);
        backend.write(ids, batch.ids);
        backend.write(targets, batch.targets);
        const scale = this.#lossScale && { [stateName.lossScale]: this.#tensor(stateName.lossScale) };
        const found = await probe.explain({ ...this.#parameters(), ...scale, ids, targets });
        if (found !== undefined) return found;
      }
      return "every value is finite by itself, but the norm of all gradients overflows float32";
    } finally {
      probe.close();
    }
  }

  /** The held-out loss of the current parameters. @throws ConfigError without held-out batches */
  async evaluate(): Promise<HeldOutLoss> {
    const { backend, model, heldOut } = this.#options;
    if (heldOut === undefined) throw new ConfigError("evaluate: this trainer was made without held-out batches");
    this.#evaluator ??= await HeldOutEvaluator.create(backend, model, this.settings.precision, heldOut);
    return await this.#evaluator.loss(this.#parameters());
  }

  /** A copy of the parameters, row major. @throws DeviceError where a run before it failed */
  async parameters(): Promise<Record<string, Float32Array>> {
    const entries = Object.entries(this.parameterTensors());
    return Object.fromEntries(await Promise.all(entries.map(async ([name, tensor]) => [name, await tensor.read()])));
  }

  /** The parameters, each read when asked for, so that a save holds one at a time. */
  parameterTensors(): Record<string, StateTensor> {
    return this.#stateTensors((name) => name);
  }

  /** The optimizer's moments, as `firstMoment.<parameter>` and `secondMoment.<parameter>`. */
  momentTensors(): Record<string, StateTensor> {
    return { ...this.#stateTensors(stateName.firstMoment), ...this.#stateTensors(stateName.secondMoment) };
  }

  #stateTensors(nameOf: (parameter: string) => string): Record<string, StateTensor> {
    return Object.fromEntries(
      Object.entries(this.model.parameters).map(([parameter, { shape }]) => {
        const tensor = this.#tensor(nameOf(parameter));
        const read = async () => resized((await tensor.read()) as Float32Array, sizesOf(tensor.spec.shape), shape);
        return [nameOf(parameter), { shape, read }];
      }),
    );
  }

  /**
   * Takes up a state that was saved: the run goes on as if it had never stopped.
   *
   * @param read values of a parameter or a moment, row major, by the names of `parameterTensors` and `momentTensors`
   * @throws GraphError where a value is of another size; what `read` throws
   */
  async restore(progress: TrainerProgress, read: (name: string) => Promise<Float32Array>): Promise<void> {
    for (const [name, { shape }] of Object.entries({ ...this.parameterTensors(), ...this.momentTensors() })) {
      const tensor = this.#tensor(name);
      this.#options.backend.write(tensor, resized(await read(name), shape, sizesOf(tensor.spec.shape)));
    }
    await this.#copyShadows();
    if (isScaled(this.settings.precision)) {
      const { scale, steps } = progress.lossScale ?? { scale: lossScaling.first, steps: 0 };
      this.#options.backend.write(this.#tensor(stateName.lossScale), Float32Array.of(scale));
      this.#options.backend.write(this.#tensor(stateName.stepsAtScale), Float32Array.of(steps));
      this.#lossScale = { scale, steps };
    }
    this.#step = progress.step;
    this.#skipped = progress.skipped;
    this.#secondsBefore = progress.elapsedSeconds;
    this.#startedAt = undefined;
  }

  /** Frees what the trainer holds on the backend; the backend stays. */
  async close(): Promise<void> {
    this.#evaluator?.close();
    this.#accumulate.close();
    this.#update.close();
    for (const tensor of [...Object.values(this.#state), ...Object.values(this.#inputs)]) tensor.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
