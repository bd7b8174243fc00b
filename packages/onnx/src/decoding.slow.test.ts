// Cached decoding of every family: a prompt, then chunks and single tokens, against one full pass.

import {
  type Backend,
  Decoder,
  type Family,
  i32,
  initialize,
  languageModel,
  type ModelConfig,
  preset,
  RandomStream,
} from "@sisa/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { families } from "../../core/src/models/families.ts";
import { onnxruntime } from "./index.ts";

const vocabularySize = 19;
/** Longer than a chunk of a scan, a block of decay sums and the window below. */
const length = 100;
const small = { vocabularySize, width: 64, heads: 4, layers: 3, feedForwardWidth: 24, maximumLength: 200 } as const;
const tokens = Array.from({ length }, (_, index) => new RandomStream(2, "tokens").below(vocabularySize, index));

let backend: Backend;
beforeAll(async () => {
  backend = await onnxruntime();
});
afterAll(() => backend.close());

function familyConfig(family: Family): ModelConfig {
  // State space models have no feed-forward, and states whose width is solved unless it is given.
  const { feedForwardWidth, ...others } = small;
  if (family === "mamba2" || family === "mamba3") return preset(family, "1m", { ...others, stateWidth: 8 });
  const config = preset(family, "1m", { ...others, feedForwardWidth });
  const settings = Object.entries(config.mixerSettings ?? {}).map(([name, mixer]) => [
    name,
    mixer.kind === "attention" && mixer.window !== undefined ? { ...mixer, window: 20 } : mixer,
  ]);
  return config.mixerSettings ? { ...config, mixerSettings: Object.fromEntries(settings) } : config;
}

/** What is not a family of its own. */
const variants: { readonly [name: string]: ModelConfig } = {
  "mamba3 of two ranks": preset("mamba3", "1m", {
    ...small,
    feedForwardWidth: 0,
    stateWidth: 8,
    mixers: ["mimo", "mimo"],
    mixerSettings: { mimo: { kind: "mamba3", rank: 2, decay: "heavy-tail", outputNorm: true } },
  }),
  "sisa with sigmoids": preset("sisa", "1m", {
    ...small,
    stateWidth: 8,
    mixers: ["sigmoid", "sigmoid"],
    mixerSettings: { sigmoid: { kind: "sisa", weights: "sigmoid" } },
  }),
  "sisa of what the paper leaves open": preset("sisa", "1m", {
    ...small,
    stateWidth: 8,
    mixers: ["decay", "rotation"],
    mixerSettings: {
      decay: { kind: "sisa", rotation: false, positions: "none", longestHalfLife: 50 },
      rotation: { kind: "sisa", decay: "none", normalize: true, stateWidth: 6 },
    },
  }),
  "jamba with experts": {
    ...preset("jamba", "1m", small),
    feedForwards: ["routed", "dense", "routed"],
    experts: { count: 4, perToken: 2 },
  },
};

const configs = [
  ...(Object.keys(families) as Family[]).map((family) => [family, familyConfig(family)] as const),
  ...Object.entries(variants),
];

describe.each(configs)("cached decoding of %s", (_name, config) => {
  test("equals the full pass", async () => {
    const model = languageModel(config);
    const parameters = initialize(model, 5);
    // Weights so large that every part of the cache matters, and a decay that is felt within a few tokens.
    for (const [name, values] of Object.entries(parameters)) {
      if (name.endsWith("alpha_proj.bias")) values.fill(-1);
      else if (model.parameters[name]?.initializer.kind === "normal") values.set(values.map((value) => value * 6));
    }
    const program = await backend.compile(model.logitsGraph().bind({ B: 1, T: length }), { constants: parameters });
    const ids = backend.tensor(i32(1, length), Int32Array.from(tokens));
    const full = Float32Array.from(await program.run({ ids }).logits.read());
    program.close();
    ids.dispose();
    const largest = full.reduce((a, b) => Math.max(a, Math.abs(b)), 0);

    await using decoder = await Decoder.create({ model, parameters, backend });
    let position = 0;
    for (const size of [30, 1, 1, 40, 1, 1, 25, 1]) {
      const logits = await decoder.append([tokens.slice(position, position + size)], [position]);
      position += size;
      let furthest = 0;
      for (let v = 0; v < vocabularySize; v++) {
        const expected = full[(position - 1) * vocabularySize + v] ?? Number.NaN;
        furthest = Math.max(furthest, Math.abs((logits[v] ?? Number.NaN) - expected));
      }
      expect(furthest / largest, `after ${position} tokens`).toBeLessThan(1e-4);
    }
  });
});
