// A few steps of every family on a text that repeats itself: its loss falls well below that of guessing.
import { type Family, languageModel, type MixerSettings, type ModelConfig, preset } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { expect, it } from "vitest";
import { families } from "../../core/src/models/families.ts";
import { tinyData, tinySettings } from "../test/tiny.ts";
import { train } from "./train.ts";

const small = { vocabularySize: 257, width: 64, heads: 4, layers: 3, maximumLength: 64 } as const;

function familyConfig(family: Family): ModelConfig {
  if (family === "mamba2" || family === "mamba3") return preset(family, "1m", { ...small, stateWidth: 8 });
  return preset(family, "1m", { ...small, feedForwardWidth: 48 });
}

/** The blocks of SISA or Mamba-3 with a setting changed. */
function variant(settings: MixerSettings): ModelConfig {
  const change = { mixers: ["variant", "variant"], mixerSettings: { variant: settings } };
  return { ...familyConfig(settings.kind === "mamba3" ? "mamba3" : "sisa"), ...change };
}

const variants = {
  "sisa with sigmoids": variant({ kind: "sisa", weights: "sigmoid" }),
  "sisa with decay only": variant({ kind: "sisa", rotation: false, positions: "none", longestHalfLife: 50 }),
  "sisa with rotation only": variant({ kind: "sisa", decay: "none", normalize: true }),
  "sisa with constant decay": variant({ kind: "sisa", decay: "constant" }),
  "mamba3 of two ranks": variant({ kind: "mamba3", rank: 2, decay: "heavy-tail", outputNorm: true }),
} satisfies { readonly [name: string]: ModelConfig };

const configs = [
  ...(Object.keys(families) as Family[]).map((family) => [family, familyConfig(family)] as const),
  ...Object.entries(variants),
];

it.each(configs)("%s learns", async (_name, config) => {
  await using backend = await onnxruntime({ threads: 1 });
  const settings = { ...tinySettings, steps: 40, sequenceLength: 32, microBatchSize: 4, logEvery: 40 };
  const { heldOutLoss } = await train({ model: languageModel(config), backend, data: tinyData(), ...settings });
  // ln 257 = 5.55 is guessing; bytes by their frequencies alone leave about 2.9.
  expect(heldOutLoss).toBeLessThan(2.5);
});
