// "@sisa/cli/config": what a configuration file imports.
import type { TrainingConfigInput } from "@sisa/train";

export { preset } from "@sisa/core";
export type { TrainingConfigInput } from "@sisa/train";

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
