// "@sisa/cli/config": what a configuration file imports.
import type { TrainingConfigInput } from "@sisa/train";
import type { ExperimentInput } from "./experiment/plan.ts";

export { preset } from "@sisa/core";
export type { TrainingConfigInput } from "@sisa/train";
export type { ExperimentInput, FamilyChoice, TaskOptions, WorkloadInput } from "./experiment/plan.ts";

/**
 * The configuration of `sisa train`, checked by the editor while it is written. It is returned as it is.
 *
 * ```ts
 * import { defineConfig, preset } from "@sisa/cli/config";
 * export default defineConfig({
 *   model: preset("sisa", "5m", { vocabularySize: 257 }),
 *   data: { text: "corpus/" },
 *   steps: 500,
 * });
 * ```
 */
export function defineConfig(config: TrainingConfigInput): TrainingConfigInput {
  return config;
}

/** The file of `sisa experiment`, checked by the editor while it is written. It is returned as it is. */
export function defineExperiment(experiment: ExperimentInput): ExperimentInput {
  return experiment;
}
