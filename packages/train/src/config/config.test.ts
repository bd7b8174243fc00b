import { ConfigError, type ModelConfig, preset } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { configFields, configHelp, modelConfigOf, parseTrainingConfig, settingsOf, withOverrides } from "./config.ts";
import { resolveSettings, scheduleOf } from "./settings.ts";
import { fieldsOf } from "./table.ts";

const small = { parameterCount: 5e6 };

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (ConfigError.isInstance(error)) return error.message;
    throw error;
  }
  throw new Error("expected a ConfigError");
}

describe("parseTrainingConfig", () => {
  it("fills in defaults at every level", () => {
    const config = parseTrainingConfig({ data: { text: "corpus" }, optimizer: { learningRate: 1e-3 } });
    expect(config.optimizer).toMatchObject({ learningRate: 1e-3, weightDecay: 0.1, beta2: 0.95, clipNorm: 1 });
    expect(config.data).toEqual({ text: "corpus", tokenizer: "byte", sequenceLength: 256, heldOutFraction: 0.05 });
    expect(config.steps).toBeUndefined();
  });

  it.each([
    [{ optimizer: { learning_rate: 1 } }, '"optimizer.learning_rate" is not a field', '"optimizer.learningRate"?'],
    [{ learningRate: 1 }, '"learningRate" is not a field', '"optimizer.learningRate"?'],
    [{ optimiser: {} }, '"optimiser" is not a field', 'did you mean "optimizer"?'],
    [{ stps: 3 }, '"stps" is not a field', 'did you mean "steps"?'],
    [{ data: { texts: "a" } }, '"data.texts" is not a field', 'did you mean "data.text"?'],
  ])("names the nearest field for %j", (config, what, hint) => {
    const message = messageOf(() => parseTrainingConfig(config));
    expect(message).toContain(what);
    expect(message).toContain(hint);
    expect(message).not.toContain("\n");
  });

  it("suggests nothing where nothing is near", () => {
    expect(messageOf(() => parseTrainingConfig({ xylophone: 1 }))).toBe(
      '"xylophone" is not a field of the configuration',
    );
  });

  it.each([
    [{ steps: 0 }, "steps: expected a whole number >= 1, got 0"],
    [{ steps: 1.5 }, "steps: expected a whole number >= 1, got 1.5"],
    [{ steps: "many" }, 'steps: expected a whole number >= 1, got "many"'],
    [{ optimizer: { beta1: 1 } }, "optimizer.beta1: expected a number >= 0 and < 1, got 1"],
    [{ optimizer: { learningRate: Number.NaN } }, "optimizer.learningRate: expected a number > 0, got NaN"],
    [{ optimizer: 3 }, "optimizer: expected an object, got 3"],
    [{ saveEvery: 0 }, "saveEvery: expected a whole number >= 1, or -1, got 0"],
    [{ precision: "float8" }, 'precision: expected one of float32, bfloat16, float16, paper, got "float8"'],
    [{ data: { heldOutFraction: 1 } }, "data.heldOutFraction: expected a number > 0 and < 1, got 1"],
    [{ samplePrompts: [1] }, "samplePrompts: expected a text or a list of texts, got [1]"],
    [{ optimizer: { groups: [{ parameters: "*" }] } }, "optimizer.groups: expected a list of"],
    [[], "configuration: expected an object, got []"],
  ])("says what was expected and what came for %j", (config, message) => {
    expect(messageOf(() => parseTrainingConfig(config))).toContain(message);
  });

  it.each([
    [{ batchTokens: 4096, gradientAccumulation: 2 }, "batchTokens", "gradientAccumulation"],
    [{ data: { text: "a", shards: "b" } }, "data.text", "data.shards"],
    [{ data: { shards: "b", tokenizer: "t.json" } }, "data.tokenizer", "data.shards"],
    [{ sampleEvery: 10 }, "sampleEvery", "samplePrompts"],
    [{ precision: "bfloat16" }, "precision", "backend"],
    [{ data: { text: "a", synthetic: "mqar" } }, "data.text", "data.synthetic"],
    [{ data: { text: "a", vocabularySize: 9 } }, "data.vocabularySize", "data.synthetic"],
  ])("refuses conflicting fields with both names: %j", (config, one, other) => {
    const message = messageOf(() => parseTrainingConfig(config));
    expect(message).toContain(one);
    expect(message).toContain(other);
  });

  it("survives a trip through JSON", () => {
    const config = parseTrainingConfig({ data: { text: "a" }, samplePrompts: ["Once"], steps: 3 });
    expect(parseTrainingConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
  });
});

describe("withOverrides", () => {
  it("takes full addresses, kebab case and flat names, and lays them over a file", () => {
    const file = { steps: 10, optimizer: { learningRate: 1, beta1: 0.8 }, data: { text: "a" } };
    const words = [
      ["steps", "2_000"],
      ["optimizer.learning-rate", "1e-3"],
      ["weight-decay", "0"],
      ["data.sequenceLength", "128"],
      ["tensorboard", ""],
      ["sample-prompts", '["a", "b"]'],
      ["output", "123"],
    ] as const;
    const config = parseTrainingConfig(withOverrides(file, words));
    expect(config.steps).toBe(2000);
    expect(config.optimizer).toMatchObject({ learningRate: 1e-3, beta1: 0.8, weightDecay: 0 });
    expect(config.data).toMatchObject({ text: "a", sequenceLength: 128 });
    expect(config.tensorboard).toBe(true);
    expect(config.samplePrompts).toEqual(["a", "b"]);
    expect(config.output).toBe("123");
    expect(file.optimizer.learningRate).toBe(1);
  });

  it("takes the fields of a model in any spelling", () => {
    const words = [
      ["model.state-width", "16"],
      ["model.maximum_length", "64"],
      ["model.rope-base", "1e4"],
      ["model.preset", "sisa"],
    ] as const;
    expect(withOverrides({}, words)).toEqual({
      model: { stateWidth: 16, maximumLength: 64, ropeBase: 1e4, preset: "sisa" },
    });
  });

  it("passes any address below model on, to be checked by the model", () => {
    expect(withOverrides({ model: { preset: "sisa" } }, [["model.stateWidth", "16"]])).toEqual({
      model: { preset: "sisa", stateWidth: 16 },
    });
  });

  it("reaches every field by its flag", () => {
    for (const { path, field } of fieldsOf(configFields)) {
      const flag = /--(\S+)/.exec(
        configHelp()
          .split("\n")
          .find((line) => line.includes(`--${kebab(path)} `)) ?? "",
      );
      expect(flag?.[1], path).toBe(kebab(path));
      if (field.default === undefined) continue;
      const word = typeof field.default === "string" ? field.default : JSON.stringify(field.default);
      const checked = field.check(field.fromText(word));
      expect(checked, path).toEqual({ value: field.default });
    }
  });

  it("names the nearest field for an unknown flag and shows text that is no number", () => {
    expect(messageOf(() => withOverrides({}, [["learning-rat", "1"]]))).toContain('"optimizer.learningRate"');
    expect(messageOf(() => parseTrainingConfig(withOverrides({}, [["steps", "1e"]])))).toContain('got "1e"');
  });
});

describe("modelConfigOf", () => {
  it("makes a preset for the tokenizer, with overrides", () => {
    const choice = { preset: "sisa", size: "1m", stateWidth: 16, layers: 2 } as const;
    expect(modelConfigOf(choice, 300)).toEqual(
      preset("sisa", "1m", { vocabularySize: 300, stateWidth: 16, layers: 2 }),
    );
    expect(modelConfigOf({ ...choice, vocabularySize: 320 }, 300).vocabularySize).toBe(320);
  });

  it("takes a complete model as it is", () => {
    const model = preset("transformer", "1m");
    expect(modelConfigOf(JSON.parse(JSON.stringify(model)), 300)).toEqual(model);
  });

  it.each([
    [{ preset: "sisa", size: "1m", statewidth: 16 }, 'did you mean "model.stateWidth"?'],
    [{ preset: "sisa", size: "7b" }, 'model.size: expected one of 1m, 5m, 50m, 152m, 369m, got "7b"'],
    [{ preset: "sisa" }, "model.size: expected one of 1m, 5m, 50m, 152m, 369m, got nothing"],
    [{ width: 64 }, "model.mixers: expected a value, got nothing"],
    [{ ...preset("sisa", "1m"), heads: 3 }, "heads must divide width, got heads 3 and width 128"],
    [{ ...preset("sisa", "1m"), stateWidth: 7 }, "stateWidth must be even"],
  ])("refuses %j", (choice, message) => {
    expect(messageOf(() => modelConfigOf(choice as unknown as ModelConfig, 300))).toContain(message);
  });
});

function kebab(path: string): string {
  return path.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

describe("resolveSettings", () => {
  it("derives sizes, warm-up and learning rate", () => {
    const settings = resolveSettings({ steps: 500 }, small);
    expect(settings).toMatchObject({ microBatchSize: 8, gradientAccumulation: 1, batchTokens: 2048 });
    expect(settings.optimizer).toMatchObject({ learningRate: 2e-3, warmupSteps: 25 });
    // Eight held-out batches take the time of 8/3 steps.
    expect(settings.evaluateEvery).toBe(54);
    expect(resolveSettings({ steps: 9536, gradientAccumulation: 64 }, small).evaluateEvery).toBe(954);
    expect(resolveSettings({ steps: 9536 }, { parameterCount: 152e6 }).optimizer).toMatchObject({
      learningRate: 6e-4,
      warmupSteps: 477,
    });
    expect(scheduleOf(settings)).toEqual({ learningRate: 2e-3, warmupSteps: 25, totalSteps: 500, finalFraction: 0 });
    const beginning = resolveSettings({ steps: 500, optimizer: { scheduleSteps: 9536 } }, { parameterCount: 1e6 });
    expect(scheduleOf(beginning).totalSteps).toBe(9536);
  });

  it("splits the paper's step into micro-batches", () => {
    const paper = { steps: 9536, sequenceLength: 2048, batchTokens: 524_288, microBatchSize: 4 };
    expect(resolveSettings(paper, small).gradientAccumulation).toBe(64);
  });

  it("takes fewer sequences where batchTokens asks for fewer", () => {
    const settings = resolveSettings({ steps: 1, sequenceLength: 64, batchTokens: 192 }, small);
    expect(settings).toMatchObject({ microBatchSize: 3, gradientAccumulation: 1 });
  });

  it.each([
    [{}, "steps: expected a whole number >= 1, got nothing"],
    [{ steps: 1, batchTokens: 1000 }, "batchTokens: expected a multiple of sequenceLength (256), got 1000; try 1024"],
    [
      { steps: 1, batchTokens: 256, microBatchSize: 2 },
      "batchTokens: expected a multiple of microBatchSize x sequenceLength (512), got 256; try 512",
    ],
    [{ steps: 5, optimizer: { scheduleSteps: 4 } }, "optimizer.scheduleSteps: expected at least steps (5), got 4"],
    [
      { steps: 5, optimizer: { warmupSteps: 6 } },
      "optimizer.warmupSteps: expected at most the 5 steps of the schedule, got 6",
    ],
    [{ steps: 5, sequenceLenght: 6 }, 'did you mean "sequenceLength"?'],
  ])("refuses %j", (settings, message) => {
    expect(messageOf(() => resolveSettings(settings, small))).toContain(message);
  });

  it("takes what settingsOf makes of a configuration, and its own output again", () => {
    const config = parseTrainingConfig({ steps: 7, data: { text: "a", sequenceLength: 32 }, keepBest: true });
    const settings = resolveSettings(settingsOf(config), small);
    expect(settings).toMatchObject({ steps: 7, sequenceLength: 32, keepBest: true });
    const { batchTokens: _, ...again } = JSON.parse(JSON.stringify(settings));
    expect(resolveSettings(again, small)).toEqual(settings);
  });
});
