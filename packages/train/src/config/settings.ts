// The settings of a training run: the fields, their derived defaults, and the combinations that are refused.
// The command-line program adds where things lie (config.ts); `train` takes these.
import { ConfigError, precisions } from "@sisa/core";
import type { ParameterGroup } from "../optimizer/parameter-groups.ts";
import type { LearningRateSchedule } from "../optimizer/schedule.ts";
import { rematerializations } from "../rematerialize.ts";
import { choice, custom, type Given, integer, number, type Parsed } from "./field.ts";
import { isRecord, parseTable } from "./table.ts";

const optimizerFields = {
  learningRate: number({
    above: 0,
    derived: "by size: 2e-3 below 20M parameters, 6e-4 below 200M, else 3e-4",
    description: "Peak learning rate of AdamW.",
  }),
  warmupSteps: integer({
    minimum: 0,
    unit: "steps",
    derived: "a twentieth of the steps, at most 500",
    description: "Steps in which the learning rate rises linearly from 0.",
  }),
  scheduleSteps: integer({
    minimum: 1,
    unit: "steps",
    derived: "steps",
    description: "Steps that the cosine spans; more than steps for the beginning of a longer run.",
  }),
  finalLearningRateFraction: number({
    minimum: 0,
    maximum: 1,
    default: 0,
    description: "Where the cosine ends, as a fraction of the peak.",
  }),
  weightDecay: number({ minimum: 0, default: 0.1, description: "Decoupled weight decay of what no group names." }),
  beta1: number({ minimum: 0, below: 1, default: 0.9, description: "Decay of the mean of gradients." }),
  beta2: number({ minimum: 0, below: 1, default: 0.95, description: "Decay of the mean of squared gradients." }),
  epsilon: number({ above: 0, default: 1e-8, description: "Added to the root of the second moment." }),
  clipNorm: number({ above: 0, default: 1, description: "Largest norm of all gradients together." }),
  groups: custom<readonly ParameterGroup[]>(
    'a list of { "parameters": ["*.name"], "learningRateFactor": number >= 0, "weightDecay": number >= 0 }',
    checkGroups,
    {
      default: [],
      description:
        "Parameters with a rate and a decay of their own. Lambda has a tenth of the rate and no decay by itself.",
    },
  ),
};

/** Fields that `train` and the command-line program share. */
export const loopFields = {
  steps: integer({ minimum: 1, unit: "steps", description: "Optimizer steps of the whole run." }),
  batchTokens: integer({
    minimum: 1,
    unit: "tokens",
    derived: "microBatchSize x sequenceLength",
    description: "Tokens of one optimizer step, reached by accumulating gradients.",
  }),
  microBatchSize: integer({
    minimum: 1,
    unit: "sequences",
    derived: "8, or fewer where batchTokens asks for fewer",
    description: "Sequences that the device works on at once.",
  }),
  gradientAccumulation: integer({
    minimum: 1,
    unit: "micro-batches",
    derived: "batchTokens / (microBatchSize x sequenceLength)",
    description: "Micro-batches of one optimizer step; the other way to say batchTokens.",
  }),
  precision: choice(precisions, {
    default: "float32",
    description:
      "Widths: float32; bfloat16 products and activations with float32 parameters, norms and sums; or paper, which rounds " +
      "parameters and moments to bfloat16 too: backend cuda. Or float16, as bfloat16 with a scaled loss: backend webgpu.",
  }),
  rematerialize: choice(rematerializations, {
    default: "none",
    description:
      "Activations computed again in the backward pass to save memory: none, or layers, which keeps only what goes " +
      "from layer to layer and adds at most one forward pass to a step.",
  }),
  optimizer: optimizerFields,
  seed: integer({
    minimum: 0,
    maximum: 2 ** 32 - 1,
    default: 0,
    description: "Seed of the initial weights, the data order and the samples.",
  }),
  logEvery: integer({
    minimum: 1,
    unit: "steps",
    default: 10,
    description: "Steps between two fetches of the losses; each step is still logged.",
  }),
  evaluateEvery: integer({
    minimum: 1,
    or: -1,
    unit: "steps",
    derived: "a tenth of the steps, or what keeps it to about a twentieth of the time",
    description: "Steps between two held-out losses; -1: only after the last step.",
  }),
  heldOutBatches: integer({
    minimum: 1,
    unit: "micro-batches",
    default: 8,
    description: "Most held-out micro-batches of one evaluation; they are the same each time.",
  }),
  sampleEvery: integer({
    minimum: 1,
    or: -1,
    unit: "steps",
    default: -1,
    description: "Steps between two samples; -1: only after the last step.",
  }),
  samplePrompts: custom<readonly string[]>("a text or a list of texts", checkTexts, {
    default: [],
    description: "Prompts to be continued; none, no samples.",
  }),
  sampleTokens: integer({ minimum: 1, unit: "tokens", default: 100, description: "Length of a sample." }),
  sampleTemperature: number({ minimum: 0, default: 0.8, description: "Temperature of the samples; 0 is greedy." }),
  saveEvery: integer({
    minimum: 1,
    or: -1,
    unit: "steps",
    derived: "a tenth of the steps, at most 500",
    description: "Steps between two checkpoints; -1: only after the last step.",
  }),
  keepCheckpoints: integer({ minimum: 1, default: 3, description: "How many of the newest checkpoints are kept." }),
  keepBest: custom<boolean>("true or false", (value) => (typeof value === "boolean" ? value : undefined), {
    default: false,
    description: "Keep the checkpoint of the lowest held-out loss too.",
  }),
  maximumSkippedSteps: integer({
    minimum: 1,
    unit: "steps",
    default: 10,
    description: "Steps in a row that are not finite before the run is ended.",
  }),
};

export const sequenceLengthField = integer({
  minimum: 1,
  unit: "tokens",
  default: 256,
  description: "Tokens of one training sequence.",
});

/** All fields of `train`. */
export const settingsFields = { sequenceLength: sequenceLengthField, ...loopFields };

/** What `train` takes besides the model, the backend and the data. Every field but `steps` has a default. */
export type TrainingSettings = Given<typeof settingsFields>;

/** Settings with every default filled in. Plain JSON; a checkpoint holds it. */
export interface ResolvedSettings extends Omit<Parsed<typeof settingsFields>, "optimizer"> {
  /** Optimizer steps of the whole run. */
  readonly steps: number;
  /** Tokens of a step. */
  readonly batchTokens: number;
  /** Rows that are computed at once. */
  readonly microBatchSize: number;
  /** Micro-batches of a step. */
  readonly gradientAccumulation: number;
  /** AdamW and its schedule. */
  readonly optimizer: Required<Parsed<typeof optimizerFields>> & {
    /** At its peak, after the warm-up. */
    readonly learningRate: number;
    /** Steps over which it rises from 0. */
    readonly warmupSteps: number;
    /** Steps after which the cosine has fallen to its end. */
    readonly scheduleSteps: number;
  };
  /** Steps between two held-out losses. */
  readonly evaluateEvery: number;
  /** Steps between two checkpoints. */
  readonly saveEvery: number;
}

/**
 * Checks settings and fills in every default.
 *
 * @param context.parameterCount size of the model, from which the default learning rate follows
 * @throws ConfigError unknown field, wrong value, conflicting fields, or sizes that do not fit together
 */
export function resolveSettings(settings: unknown, context: { readonly parameterCount: number }): ResolvedSettings {
  const parsed = parseTable(settingsFields, settings);
  const { steps, sequenceLength, optimizer } = parsed;
  if (steps === undefined) throw new ConfigError("steps: expected a whole number >= 1, got nothing; say how many");
  refuseConflicts(parsed);

  const batch = resolveBatch(parsed, sequenceLength);
  const warmupSteps = optimizer.warmupSteps ?? Math.min(500, Math.ceil(steps / 20));
  const scheduleSteps = optimizer.scheduleSteps ?? steps;
  if (scheduleSteps < steps) {
    throw new ConfigError(
      `optimizer.scheduleSteps: expected at least steps (${steps}), got ${scheduleSteps}; raise it or train shorter`,
    );
  }
  if (warmupSteps > scheduleSteps) {
    throw new ConfigError(
      `optimizer.warmupSteps: expected at most the ${scheduleSteps} steps of the schedule, got ${warmupSteps}; lower it or train longer`,
    );
  }
  return {
    ...parsed,
    ...batch,
    steps,
    optimizer: {
      ...optimizer,
      learningRate: optimizer.learningRate ?? defaultLearningRate(context.parameterCount),
      warmupSteps,
      scheduleSteps,
    },
    evaluateEvery:
      parsed.evaluateEvery ?? defaultEvaluateEvery(steps, parsed.heldOutBatches, batch.gradientAccumulation),
    saveEvery: parsed.saveEvery ?? Math.max(1, Math.min(500, Math.round(steps / 10))),
  };
}

/** Combinations that contradict each other, for settings and configurations alike. */
export function refuseConflicts(given: {
  readonly batchTokens?: number | undefined;
  readonly gradientAccumulation?: number | undefined;
  readonly sampleEvery: number;
  readonly samplePrompts: readonly string[];
}): void {
  if (given.batchTokens !== undefined && given.gradientAccumulation !== undefined) {
    throw new ConfigError(
      "batchTokens and gradientAccumulation contradict each other: both say how large a step is; give one of them",
    );
  }
  if (given.sampleEvery !== -1 && given.samplePrompts.length === 0) {
    throw new ConfigError("sampleEvery is set but samplePrompts is empty; give a prompt, or leave sampleEvery out");
  }
}

function resolveBatch(
  given: {
    readonly batchTokens?: number | undefined;
    readonly microBatchSize?: number | undefined;
    readonly gradientAccumulation?: number | undefined;
  },
  sequenceLength: number,
): { batchTokens: number; microBatchSize: number; gradientAccumulation: number } {
  const { batchTokens } = given;
  if (batchTokens === undefined) {
    const microBatchSize = given.microBatchSize ?? 8;
    const gradientAccumulation = given.gradientAccumulation ?? 1;
    return {
      microBatchSize,
      gradientAccumulation,
      batchTokens: microBatchSize * gradientAccumulation * sequenceLength,
    };
  }
  const rows = batchTokens / sequenceLength;
  const microBatchSize = given.microBatchSize ?? largestDivisor(rows, 8);
  const unit = microBatchSize * sequenceLength;
  if (!Number.isInteger(batchTokens / unit)) {
    const near = Math.max(1, Math.round(batchTokens / unit)) * unit;
    const sizes = given.microBatchSize === undefined ? "sequenceLength" : "microBatchSize x sequenceLength";
    throw new ConfigError(`batchTokens: expected a multiple of ${sizes} (${unit}), got ${batchTokens}; try ${near}`);
  }
  return { batchTokens, microBatchSize, gradientAccumulation: batchTokens / unit };
}

function largestDivisor(rows: number, most: number): number {
  for (let size = Math.min(most, Math.floor(rows)); size > 1; size--) if (Number.isInteger(rows / size)) return size;
  return 1;
}

function defaultLearningRate(parameterCount: number): number {
  return parameterCount < 20e6 ? 2e-3 : parameterCount < 200e6 ? 6e-4 : 3e-4;
}

/** A forward pass takes about a third of a training step, so this many steps take twenty times an evaluation. */
function defaultEvaluateEvery(steps: number, heldOutBatches: number, gradientAccumulation: number): number {
  return Math.max(Math.round(steps / 10), Math.ceil((20 * heldOutBatches) / (3 * gradientAccumulation)));
}

/** The schedule that settings describe. */
export function scheduleOf(settings: ResolvedSettings): LearningRateSchedule {
  const { learningRate, warmupSteps, scheduleSteps, finalLearningRateFraction } = settings.optimizer;
  return { learningRate, warmupSteps, totalSteps: scheduleSteps, finalFraction: finalLearningRateFraction };
}

function checkTexts(value: unknown): readonly string[] | undefined {
  if (typeof value === "string") return [value];
  return Array.isArray(value) && value.every((item) => typeof item === "string") ? value : undefined;
}

function checkGroups(value: unknown): readonly ParameterGroup[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const groups = value.map((item: unknown): ParameterGroup | undefined => {
    if (!isRecord(item)) return undefined;
    const { parameters, learningRateFactor, weightDecay, ...rest } = item;
    const names = checkTexts(parameters);
    if (names === undefined || Object.keys(rest).length > 0) return undefined;
    if (typeof learningRateFactor !== "number" || !(learningRateFactor >= 0)) return undefined;
    if (typeof weightDecay !== "number" || !(weightDecay >= 0)) return undefined;
    return { parameters: names, learningRateFactor, weightDecay };
  });
  return groups.every((group) => group !== undefined) ? groups : undefined;
}
