// The file of `sisa experiment`, and the runs that it asks for: every model on every workload with every seed.
import { ConfigError, type Family, type PresetOverrides, type PresetSize } from "@sisa/core";
import {
  findTask,
  isRecord,
  mergeConfig,
  parseTrainingConfig,
  resolveSettings,
  settingsOf,
  type TrainingConfig,
  type TrainingConfigInput,
} from "@sisa/train";

/** A family by the name of its presets, or one with fields that differ, under a name of its own. */
export type FamilyChoice =
  | Family
  | ({
      /** Of the model in tables. */
      readonly name: string;
      /** What it is a variant of. */
      readonly family: Family;
    } & PresetOverrides);

/** Something to train on: a training configuration without a model and a seed, and what to measure. */
export interface WorkloadInput extends Omit<TrainingConfigInput, "model" | "seed" | "output" | "resume" | "threads"> {
  /** Token budget, in place of `steps`; rounded up to whole steps. */
  readonly tokens?: number;
  /** Fields of every model on this workload, such as its `maximumLength`. */
  readonly model?: PresetOverrides;
  /** Tasks that are run wherever the held-out loss is measured. */
  readonly tasks?: readonly string[];
  /** Tasks that are run after the last step only. */
  readonly finalTasks?: readonly string[];
  /** As the options of `sisa eval` of these names. */
  readonly taskOptions?: TaskOptions;
}

/** How tasks are made, as the options of `sisa eval` of these names. */
export interface TaskOptions {
  /** Tokens: the lengths of niah:grid; the one length of niah:several, mqar and parity. Default: those of the task. */
  readonly lengths?: readonly number[];
  /** Depths of niah:grid, spread evenly. Default: that of the task. */
  readonly depths?: number;
  /** Needles of niah:several. Default: that of the task. */
  readonly needles?: number;
  /** Items at most, or for `perplexity` tokens. Default: all. */
  readonly limit?: number;
}

/** What `sisa experiment` reads: every family of every size trains on every workload with every seed. */
export interface ExperimentInput {
  /** Folder of the results below `output`; by default from the name of the file. */
  readonly name?: string;
  /** By name, or with fields of the configuration that differ. */
  readonly families: readonly FamilyChoice[];
  /** By name: "1m", "50m". */
  readonly sizes: readonly PresetSize[];
  /** Seeds of weights and of the data order, which is one for all models. Default: 0. */
  readonly seeds?: readonly number[];
  /** Common to all workloads. */
  readonly common?: WorkloadInput;
  /** By name: data, steps, and what to measure when. */
  readonly workloads: Readonly<Record<string, WorkloadInput>>;
  /** Files of the sets that tasks ask for, or folders with them, as `--data` of `sisa eval`. */
  readonly sets?: readonly string[];
  /** Default: "runs". */
  readonly output?: string;
}

/** One training run of an experiment. */
export interface PlannedRun {
  /** Folder below that of the experiment, and the word for `--run`: "text/sisa-1m-seed0". */
  readonly id: string;
  readonly workload: string;
  /** As in "sisa 1m". */
  readonly model: string;
  readonly seed: number;
  readonly config: TrainingConfig;
  readonly tasks: readonly string[];
  readonly finalTasks: readonly string[];
  readonly taskOptions: TaskOptions;
}

export interface Experiment {
  readonly name: string;
  readonly output: string;
  readonly sets: readonly string[];
  readonly runs: readonly PlannedRun[];
}

const experimentFields = ["name", "families", "sizes", "seeds", "common", "workloads", "sets", "output"];

/**
 * The runs of an experiment, checked.
 * @param fallbackName for a file that gives none
 * @throws ConfigError naming the field that is wrong
 */
export function planExperiment(value: unknown, fallbackName: string): Experiment {
  if (!isRecord(value)) throw new ConfigError("experiment: expected an object with families, sizes and workloads");
  for (const field of Object.keys(value)) {
    if (experimentFields.includes(field)) continue;
    throw new ConfigError(`"${field}" is not a field of an experiment; expected ${experimentFields.join(", ")}`);
  }
  const input = value as Partial<ExperimentInput>;
  const { name = fallbackName, seeds = [0], common = {}, sets = [], output = "runs" } = input;
  const families = list("families", input.families);
  const sizes = list("sizes", input.sizes);
  if (!isRecord(input.workloads) || Object.keys(input.workloads).length === 0) {
    throw new ConfigError("workloads: expected an object with a workload under each name, got none");
  }
  const runs = Object.entries(input.workloads).flatMap(([workload, own]) =>
    families.flatMap((family) =>
      sizes.flatMap((size) =>
        list("seeds", seeds).map((seed) =>
          planRun(checkName("workloads", workload), merged(common, own), family, size, seed),
        ),
      ),
    ),
  );
  const ids = runs.map(({ id }) => id);
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) throw new ConfigError(`experiment: two runs are called ${twice}; give variants a name each`);
  return { name: checkName("name", name), output, sets, runs };
}

function list<T>(field: string, value: readonly T[] | undefined): readonly T[] {
  if (Array.isArray(value) && value.length > 0) return value;
  throw new ConfigError(`${field}: expected a list of at least one, got ${JSON.stringify(value)}`);
}

function checkName(field: string, name: string): string {
  if (/^[A-Za-z0-9][\w.-]*$/.test(name)) return name;
  throw new ConfigError(`${field}: expected letters, digits, ".", "_" and "-", got "${name}"`);
}

function merged(common: WorkloadInput, own: WorkloadInput): WorkloadInput {
  return mergeConfig(common, own) as WorkloadInput;
}

function planRun(
  workload: string,
  { tokens, model: overrides = {}, tasks = [], finalTasks = [], taskOptions = {}, ...training }: WorkloadInput,
  family: FamilyChoice,
  size: PresetSize,
  seed: number,
): PlannedRun {
  const { name, family: preset, ...variant } = typeof family === "string" ? { name: family, family } : family;
  for (const task of [...tasks, ...finalTasks]) findTask(task);
  const { report: _, tensorboard: __, ...rest } = training;
  if (tokens !== undefined && rest.steps !== undefined) {
    throw new ConfigError(`workloads.${workload}: tokens and steps contradict each other: both say how long; give one`);
  }
  const given = { ...rest, model: { preset, size, ...overrides, ...variant }, seed };
  const config = parseTrainingConfig(tokens === undefined ? given : { ...given, steps: stepsFor(tokens, given) });
  if (config.steps === undefined) {
    throw new ConfigError(`workloads.${workload}: expected tokens or steps, got neither; say how long to train`);
  }
  // What contradicts itself is refused before the first run trains.
  resolveSettings(settingsOf(config), { parameterCount: 0 });
  const id = `${workload}/${checkName("families", name)}-${size}-seed${seed}`;
  return { id, workload, model: `${name} ${size}`, seed, config, tasks, finalTasks, taskOptions };
}

/** Whole steps that a token budget makes. */
function stepsFor(tokens: number, given: TrainingConfigInput): number {
  const settings = resolveSettings(settingsOf(parseTrainingConfig({ ...given, steps: 1e9 })), { parameterCount: 0 });
  return Math.ceil(tokens / settings.batchTokens);
}
