// What the page and its workers tell each other. Plain data that can be posted.

import { ffnWidthFor, type ModelConfig, parameterCountOf, preset, type SisaForm } from "@sisa/core";
import type { HeadTable } from "@sisa/train";

export type Family = "sisa" | "transformer";

export const modelSizes = {
  tiny: { label: "Tiny", width: 64, heads: 4, layers: 2, feedForwardWidth: 192 },
  small: { label: "Small", width: 128, heads: 4, layers: 4, feedForwardWidth: 512 },
} as const;

export interface TrainingSetup {
  readonly family: Family;
  readonly text: string;
  readonly size: keyof typeof modelSizes;
  readonly steps: number;
  readonly sequenceLength: number;
  readonly seed: number;
}

/** Both families with equally many parameters: SISA's feed-forward is narrower by what its own weights take. */
export function trainingConfig({ family, size }: Pick<TrainingSetup, "family" | "size">): ModelConfig {
  const { label: _, ...sizes } = modelSizes[size];
  const common = { ...sizes, vocabularySize: 257, stateWidth: 16, maximumLength: 512 };
  const transformer = preset("transformer", "1m", common);
  if (family === "transformer") return transformer;
  const sisa = preset("sisa", "1m", common);
  return { ...sisa, feedForwardWidth: ffnWidthFor(sisa, parameterCountOf(transformer)) };
}

export interface ModelFacts {
  /** Of each layer. */
  readonly mixers: readonly string[];
  readonly heads: number;
  readonly width: number;
  readonly vocabularySize: number;
  readonly form: SisaForm;
  readonly parameters: number;
}

/** One layer's attention to a text of T tokens; matrices are [H,T,T], query before key. */
export interface LayerView {
  /** Its number. */
  readonly name: string;
  readonly content: Float32Array;
  /** Absent where the layer is not SISA. */
  readonly importance?: Float32Array;
  readonly attention: Float32Array;
  /** Mean log alpha of each head over the text, for SISA layers. */
  readonly meanLogDecay?: readonly number[];
}

export interface AttentionView {
  /** The text token by token; one that only begins a character is empty. */
  readonly tokens: readonly string[];
  /** True where the text was longer than what is shown. */
  readonly cut: boolean;
  readonly heads: number;
  /** Layers that attend. */
  readonly layers: readonly LayerView[];
  /** Lambda and half-life; half-lives measured on this text too. Absent where no layer is SISA. */
  readonly table?: HeadTable;
}
