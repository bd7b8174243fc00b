// Compares this implementation with a golden file: random weights, and what other code computed from them.
// Two layouts. Gradient files hold weight.*, ids, targets, logits, loss and grad.*; training files hold initial.*, ids of
// every step, losses, grad_norms, learning_rates and final.*. Sizes and settings are JSON in the metadata.
import {
  type Backend,
  CheckpointError,
  type DeviceTensor,
  type GraphInputs,
  type GraphOutputs,
  i32,
  type LanguageModel,
  parameterSpecs,
  type SisaForm,
  simplify,
  type TypedArray,
  valueAndGrad,
} from "@sisa/core";
import type { TensorSource } from "@sisa/hub";
import { resolveSettings, Trainer } from "@sisa/train";
import { GoldenFile } from "./golden-file.ts";

/** Largest differences that pass. Source: the page that comes with the golden files. */
export const bounds = {
  /** Of any logit, as a share of the largest logit. */
  logits: 1e-4,
  /** Of the loss, relative. */
  loss: 1e-4,
  /** Of every gradient, relative, by norm. */
  gradient: 1e-3,
  /** Of the loss at every step of a training file, in nats. */
  losses: 1e-4,
} as const;

/**
 * A gradient smaller than this share of all gradients together is measured against the share: float32 cannot hold it to
 * more digits.
 */
const smallestShare = 1e-7;

export interface Verification {
  readonly kind: string;
  /** Figures by name, for the line of JSON. Differences are relative, by norm, where nothing else is said. */
  readonly figures: Readonly<Record<string, number | string>>;
  /** What is broken, as sentences; empty where the file is reproduced. */
  readonly broken: readonly string[];
}

export interface VerifyOptions {
  readonly backend: Backend;
  readonly form: SisaForm;
}

/**
 * Runs a golden file.
 * @throws CheckpointError where the file is not a golden file of a known kind, or contradicts itself
 */
export async function verifyGolden(file: TensorSource, options: VerifyOptions): Promise<Verification> {
  const golden = new GoldenFile(file);
  if (golden.has("losses")) return await verifyTraining(golden, options);
  if (golden.has("logits") || golden.has("loss")) return await verifyGradients(golden, options);
  throw new CheckpointError(`${file.location}: not a golden file: it has neither "logits" and "loss" nor "losses"`);
}

async function verifyGradients(golden: GoldenFile, { backend, form }: VerifyOptions): Promise<Verification> {
  const ids = await golden.ids("ids", 2);
  const [B = 0, T = 0] = ids.shape;
  const model = golden.model(form, T);
  const run = { backend, model, parameters: await golden.parameters(model, "weight."), B, T, ids: ids.data };
  const figures: Record<string, number | string> = {};
  const broken: string[] = [];

  if (golden.has("logits")) {
    const logits = await computeLogits(run);
    const expected = await golden.floats("logits");
    const ofLargest = largestDifference(logits, expected) / largestSize(expected);
    figures.logits = relativeError(logits, expected);
    figures.logitsOfLargest = ofLargest;
    broken.push(...breaks("a logit", ofLargest, bounds.logits, "of the largest logit"));
  }
  if (golden.has("loss")) {
    const targets = await golden.ids("targets", 2);
    const { loss, gradients } = await computeGradients({ ...run, targets: targets.data });
    const expected = (await golden.floats("loss"))[0] ?? Number.NaN;
    const error = Math.abs(loss - expected) / Math.abs(expected);
    const worst = await worstGradient(golden, model, gradients);
    Object.assign(figures, { loss: error, gradient: worst.error, worstGradient: worst.name });
    broken.push(
      ...breaks("the loss", error, bounds.loss, "relative"),
      ...breaks(`the gradient of ${worst.name}`, worst.error, bounds.gradient, "relative, by norm"),
    );
  }
  return { kind: golden.kind, figures, broken };
}

interface Run {
  readonly backend: Backend;
  readonly model: LanguageModel;
  readonly parameters: Readonly<Record<string, Float32Array>>;
  readonly B: number;
  readonly T: number;
  readonly ids: Int32Array;
}

async function computeLogits({ backend, model, parameters, B, T, ids }: Run): Promise<TypedArray> {
  const executable = await backend.compile(simplify(model.logitsGraph().bind({ B, T })));
  const inputs = deviceInputs({ backend, model, parameters }, [B, T], { ids });
  const { logits } = executable.run(inputs);
  const values = await logits.read();
  executable.close();
  release(inputs);
  return values;
}

async function computeGradients({
  backend,
  model,
  parameters,
  B,
  T,
  ids,
  targets,
}: Run & { readonly targets: Int32Array }): Promise<{ loss: number; gradients: Map<string, TypedArray> }> {
  const names = Object.keys(model.parameters);
  const graph = valueAndGrad(model.lossGraph().bind({ B, T }), { wrt: names });
  const executable = await backend.compile<GraphInputs, GraphOutputs>(simplify(graph));
  const inputs = deviceInputs({ backend, model, parameters }, [B, T], { ids, targets });
  const outputs = executable.run(inputs);
  const loss = (await outputs.value?.read())?.[0] ?? Number.NaN;
  const gradients = new Map<string, TypedArray>();
  for (const name of names) {
    const gradient = await outputs[`grad.${name}`]?.read();
    if (gradient !== undefined) gradients.set(name, gradient);
  }
  executable.close();
  release(inputs);
  return { loss, gradients };
}

function deviceInputs(
  { backend, model, parameters }: Pick<Run, "backend" | "model" | "parameters">,
  shape: readonly number[],
  ids: Readonly<Record<string, Int32Array>>,
): Record<string, DeviceTensor> {
  return Object.fromEntries([
    ...Object.entries(parameterSpecs(model)).map(([name, spec]) => [name, backend.tensor(spec, parameters[name])]),
    ...Object.entries(ids).map(([name, data]) => [name, backend.tensor(i32(...shape), data)]),
  ]);
}

function release(tensors: Readonly<Record<string, DeviceTensor>>): void {
  for (const tensor of Object.values(tensors)) tensor.dispose();
}

async function worstGradient(
  golden: GoldenFile,
  model: LanguageModel,
  gradients: ReadonlyMap<string, TypedArray>,
): Promise<{ name: string; error: number }> {
  const expected = new Map<string, Float32Array>();
  let squares = 0;
  for (const name of gradients.keys()) {
    const values = await golden.parameter(model, "grad.", name);
    expected.set(name, values);
    const size = norm(values);
    // One gradient that is not finite must not spoil the measure of the others.
    if (Number.isFinite(size)) squares += size ** 2;
  }
  let worst = { name: "", error: 0 };
  for (const [name, values] of gradients) {
    const error = relativeError(values, expected.get(name) ?? [], smallestShare * Math.sqrt(squares));
    // A comparison with NaN must not hide it.
    if (worst.name === "" || !(error <= worst.error)) worst = { name, error };
    if (Number.isNaN(error)) break;
  }
  return worst;
}

async function verifyTraining(golden: GoldenFile, { backend, form }: VerifyOptions): Promise<Verification> {
  const ids = await golden.ids("ids", 3);
  const [steps = 0, B = 0, length = 0] = ids.shape;
  const T = length - 1;
  const model = golden.model(form, T);
  const values = golden.json("training");
  const setting = (name: string, fallback?: number): number => golden.number(values, name, fallback);
  const learningRate = setting("learning_rate");
  const weightDecay = setting("weight_decay");
  const group = {
    parameters: ["*.lambda_raw"],
    learningRateFactor: setting("lambda_learning_rate", learningRate / 10) / learningRate,
    weightDecay: setting("lambda_weight_decay", 0),
  };
  const settings = resolveSettings(
    {
      steps: setting("total_steps"),
      sequenceLength: T,
      microBatchSize: B,
      optimizer: {
        learningRate,
        warmupSteps: setting("warmup_steps"),
        weightDecay,
        beta1: setting("beta1"),
        beta2: setting("beta2"),
        epsilon: setting("eps"),
        clipNorm: setting("clip_norm"),
        ...(golden.kind === "sisa" ? { groups: [group] } : {}),
      },
    },
    { parameterCount: 0 },
  );
  const rows = (step: number, from: number): Int32Array => {
    const batch = new Int32Array(B * T);
    for (let row = 0; row < B; row++) {
      const start = (step * B + row) * length + from;
      batch.set(ids.data.subarray(start, start + T), row * T);
    }
    return batch;
  };
  await using trainer = await Trainer.create({
    model,
    backend,
    settings,
    parameters: await golden.parameters(model, "initial."),
    batches: (step) => ({ ids: rows(step, 0), targets: rows(step, 1) }),
  });
  const losses: number[] = [];
  const gradNorms: number[] = [];
  const rates: number[] = [];
  while (losses.length < steps) {
    const { records, skippedBecause } = await trainer.advance(steps - losses.length);
    for (const record of records) {
      losses.push(record.loss);
      gradNorms.push(record.gradNorm);
      rates.push(record.learningRate);
    }
    if (skippedBecause !== undefined) break;
  }

  const expectedLosses = await golden.floats("losses");
  const lossDifference = largestDifference(losses, expectedLosses);
  const normError = largestRelative(gradNorms, await golden.floats("grad_norms"));
  const rateError = golden.has("learning_rates")
    ? largestDifference(rates, await golden.floats("learning_rates")) / learningRate
    : 0;
  const final = await golden.parameters(model, "final.");
  const reached = await trainer.parameters();
  let worst = { name: "", error: 0 };
  let differenceSquares = 0;
  let squares = 0;
  for (const [name, expected] of Object.entries(final)) {
    const own = reached[name] ?? new Float32Array(0);
    const error = relativeError(own, expected);
    if (worst.name === "" || !(error <= worst.error)) worst = { name, error };
    differenceSquares += distance(own, expected) ** 2;
    squares += norm(expected) ** 2;
  }
  // A file of another schedule is no fault of the optimizer; say so before its losses are compared.
  if (rateError > 1e-5) {
    throw new CheckpointError(
      `${golden.file.location}: its learning_rates are not those of a linear warm-up and a cosine with its settings`,
    );
  }
  return {
    kind: golden.kind,
    figures: {
      steps,
      losses: lossDifference,
      gradNorms: normError,
      finalWeights: Math.sqrt(differenceSquares / squares),
      worstFinalWeight: worst.name,
      worstFinalWeightError: worst.error,
    },
    broken: breaks("the loss of a step", lossDifference, bounds.losses, "nats"),
  };
}

/** A sentence where a difference is above its bound, or is not a number. */
function breaks(what: string, error: number, bound: number, unit: string): string[] {
  return error <= bound ? [] : [`${what} differs by ${error.toExponential(2)} ${unit}, the bound is ${bound}`];
}

function norm(values: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i] ?? 0) ** 2;
  return Math.sqrt(squares);
}

/** Norm of the difference; NaN where the lengths differ. */
function distance(values: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (values.length !== expected.length) return Number.NaN;
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += ((values[i] ?? 0) - (expected[i] ?? 0)) ** 2;
  return Math.sqrt(squares);
}

/** Norm of the difference over the norm of what was expected. */
function relativeError(values: ArrayLike<number>, expected: ArrayLike<number>, smallest = 0): number {
  const difference = distance(values, expected);
  return difference === 0 ? 0 : difference / Math.max(norm(expected), smallest);
}

/** NaN where the lengths differ, or where a value is NaN. */
function largestDifference(values: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (values.length !== expected.length) return Number.NaN;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const difference = Math.abs((values[i] ?? 0) - (expected[i] ?? 0));
    if (!(difference <= largest)) largest = difference;
    if (Number.isNaN(difference)) return difference;
  }
  return largest;
}

function largestRelative(values: ArrayLike<number>, expected: ArrayLike<number>): number {
  const ratios = Array.from({ length: expected.length }, (_, i) => (values[i] ?? Number.NaN) / (expected[i] ?? 0));
  return largestDifference(ratios, new Float64Array(ratios.length).fill(1));
}

function largestSize(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i] ?? 0));
  return largest;
}
