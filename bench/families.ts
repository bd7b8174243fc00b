// A training step of every family beside the Transformer's, in turns, at 5M parameters on the onnxruntime backend.
// npm run bench -- families [--threads 2] [--rounds 3] [--batch 4] [--length 512] [--families fox,mamba2]

import { parseArgs } from "node:util";
import { languageModel, type MixerSettings, type ModelConfig, parameterCount, preset } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { alternating, least, load, median, rounded, table } from "./support/statistics.ts";
import { makeData, ourSide } from "./support/training.ts";

const vocabularySize = 4096;
const layers = 4;

/** The Transformer's blocks with another mixer in all of them. */
function withMixer(family: "sisa" | "transformer", name: string, settings: MixerSettings): ModelConfig {
  const mixers = new Array<string>(layers).fill(name);
  return preset(family, "5m", { vocabularySize, mixers, mixerSettings: { [name]: settings } });
}

const configs: { readonly [name: string]: ModelConfig } = {
  sisa: preset("sisa", "5m", { vocabularySize }),
  "sisa-sdpa": preset("sisa", "5m", { vocabularySize, form: "sdpa" }),
  "sisa-sigmoid": withMixer("sisa", "sigmoid", { kind: "sisa", weights: "sigmoid" }),
  "sisa-decay-only": withMixer("sisa", "decay-only", { kind: "sisa", rotation: false }),
  "sisa-rotation-only": withMixer("sisa", "rotation-only", { kind: "sisa", decay: "none" }),
  nope: preset("nope", "5m", { vocabularySize }),
  alibi: preset("alibi", "5m", { vocabularySize }),
  window: withMixer("transformer", "local", { kind: "attention", window: 128 }),
  "wide-key": preset("wide-key", "5m", { vocabularySize }),
  fox: preset("fox", "5m", { vocabularySize }),
  "fox-pro": preset("fox-pro", "5m", { vocabularySize }),
  mamba2: preset("mamba2", "5m", { vocabularySize }),
  mamba3: preset("mamba3", "5m", { vocabularySize }),
  "falcon-h1": preset("falcon-h1", "5m", { vocabularySize }),
  hymba: preset("hymba", "5m", { vocabularySize }),
  jamba: preset("jamba", "5m", { vocabularySize }),
};

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      threads: { type: "string", default: "2" },
      rounds: { type: "string", default: "3" },
      batch: { type: "string", default: "4" },
      length: { type: "string", default: "512" },
      families: { type: "string", default: Object.keys(configs).join(",") },
    },
  });
  const [threads, rounds] = [Number(values.threads), Number(values.rounds)];
  const sizes = { batch: Number(values.batch), length: Number(values.length) };
  const chosen = values.families.split(",");
  const unknown = chosen.find((name) => !Object.hasOwn(configs, name));
  if (unknown !== undefined) {
    process.stderr.write(`expected families of ${Object.keys(configs).join(", ")}, got "${unknown}"\n`);
    return 2;
  }
  const open = async (config: ModelConfig) => {
    const backend = await onnxruntime({ threads });
    const model = languageModel(config);
    const side = await ourSide(backend, model, makeData(model, sizes), sizes);
    await side.steps(1);
    side.times.clear();
    return { side, parameters: parameterCount(model), close: () => backend.close() };
  };

  const loadBefore = load();
  const transformer = await open(preset("transformer", "5m", { vocabularySize }));
  const rows: string[][] = [];
  const json: Record<string, unknown> = {};
  for (const name of chosen) {
    const config = configs[name];
    if (config === undefined) continue;
    const other = await open(config);
    transformer.side.times.clear();
    await alternating(rounds, [() => transformer.side.steps(2), () => other.side.steps(2)]);
    const ratioOf = (statistic: typeof median) =>
      other.side.times.summary(statistic).step / transformer.side.times.summary(statistic).step;
    const ms = (side: typeof other.side, statistic: typeof median) =>
      (side.times.summary(statistic).step * 1000).toFixed(0);
    rows.push([
      name,
      String(other.parameters),
      ms(other.side, median),
      ms(transformer.side, median),
      ms(other.side, least),
      ms(transformer.side, least),
      ratioOf(median).toFixed(2),
      ratioOf(least).toFixed(2),
    ]);
    json[name] = { ratio: rounded(ratioOf(median)), ratioOfBest: rounded(ratioOf(least)) };
    await other.close();
  }
  await transformer.close();
  process.stdout.write(
    `5M parameters (Transformer ${transformer.parameters}), vocabulary ${vocabularySize}, batch ${sizes.batch} x ` +
      `${sizes.length}, ${threads} threads; ms a step, medians and best\n`,
  );
  const header = ["", "parameters", "step", "transformer", "best", "its best", "ratio", "of best"];
  process.stdout.write(`${table(header, rows)}\n`);
  process.stdout.write(
    `${JSON.stringify({ benchmark: "families", threads, rounds, ...sizes, load: [loadBefore, load()], ...json })}\n`,
  );
  return 0;
}

process.exitCode = await main();
