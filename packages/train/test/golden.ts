// Runs a golden training file through the trainer, for the tests of every backend.
import { type Backend, languageModel, type MixerKind, type ModelConfig } from "@sisa/core";
import { resolveSettings } from "../src/config/settings.ts";
import { Trainer } from "../src/trainer.ts";
import { type Fixture, readFixture } from "./read-fixture.ts";

/** Largest differences between a run of ours and the file. */
export interface GoldenDifferences {
  /** Of the loss at any step. */
  readonly loss: number;
  /** Relative, of the norm of the gradients at any step. */
  readonly gradNorm: number;
  /** Relative, by norm, of any parameter after the last step. */
  readonly parameter: number;
  /** The same of all parameters together. */
  readonly parameters: number;
  /** Steps compared. */
  readonly steps: number;
}

export function goldenModelConfig(fixture: Fixture): ModelConfig {
  const config = JSON.parse(fixture.metadata.config ?? "");
  const mixer: MixerKind = config.kind === "sisa" ? "sisa" : "attention";
  return {
    mixers: new Array<MixerKind>(config.n_layer).fill(mixer),
    vocabularySize: config.vocab_size,
    width: config.d_model,
    heads: config.n_head,
    feedForwardWidth: config.d_ff,
    stateWidth: config.d_state,
    form: "exact",
    maximumLength: config.max_seq_len,
    ropeBase: config.rope_theta,
    normEpsilon: config.rms_eps,
  };
}

/** Trains as the file says and compares; in precision `paper` with what PyTorch made of it in the numerics of the paper. */
export async function goldenRun(
  name: string,
  backend: Backend,
  change: Partial<ModelConfig> = {},
  precision: "float32" | "paper" = "float32",
): Promise<GoldenDifferences> {
  const fixture = readFixture(name);
  const expected = precision === "paper" ? readFixture(`${name}-paper`) : fixture;
  const training = JSON.parse(fixture.metadata.training ?? "");
  const [steps = 0, rows = 0, length = 0] = fixture.shape("ids");
  const tokens = fixture.integers("ids");
  const model = languageModel({ ...goldenModelConfig(fixture), ...change });
  const settings = resolveSettings(
    {
      precision,
      steps: training.total_steps,
      sequenceLength: length - 1,
      microBatchSize: rows,
      optimizer: {
        learningRate: training.learning_rate,
        warmupSteps: training.warmup_steps,
        weightDecay: training.weight_decay,
        beta1: training.beta1,
        beta2: training.beta2,
        epsilon: training.eps,
        clipNorm: training.clip_norm,
      },
    },
    { parameterCount: 0 },
  );
  const initial = Object.keys(model.parameters).map((key) => [key, fixture.floats(`initial.${key}`)] as const);
  await using trainer = await Trainer.create({
    model,
    backend,
    settings,
    parameters: Object.fromEntries(initial),
    batches(step) {
      const row = (index: number): Int32Array => {
        const start = (step * rows + index) * length;
        return tokens.subarray(start, start + length);
      };
      const all = Array.from({ length: rows }, (_, index) => row(index));
      return {
        ids: Int32Array.from(all.flatMap((ids) => [...ids.subarray(0, -1)])),
        targets: Int32Array.from(all.flatMap((ids) => [...ids.subarray(1)])),
      };
    },
  });
  const { records } = await trainer.advance(steps);
  const losses = expected.floats("losses");
  const norms = expected.floats("grad_norms");
  const parameters = Object.entries(await trainer.parameters());
  const pairs = parameters.map(([key, value]) => [value, expected.floats(`final.${key}`)] as const);
  return {
    steps: records.length,
    loss: Math.max(...records.map(({ loss }, step) => Math.abs(loss - (losses[step] ?? Number.NaN)))),
    gradNorm: Math.max(...records.map(({ gradNorm }, step) => Math.abs(gradNorm / (norms[step] ?? Number.NaN) - 1))),
    parameter: Math.max(...pairs.map((pair) => relativeDifference([pair]))),
    parameters: relativeDifference(pairs),
  };
}

function relativeDifference(pairs: readonly (readonly [ours: Float32Array, theirs: Float32Array])[]): number {
  let difference = 0;
  let size = 0;
  for (const [ours, theirs] of pairs) {
    theirs.forEach((value, index) => {
      difference += (value - (ours[index] ?? Number.NaN)) ** 2;
      size += value ** 2;
    });
  }
  return Math.sqrt(difference / size);
}
