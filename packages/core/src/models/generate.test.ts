import { describe, expect, test } from "vitest";
import type { Backend } from "../backend.ts";
import { ConfigError, DataError } from "../errors.ts";
import { initialize } from "../layers/layer.ts";
import { RandomStream } from "../random.ts";
import { reference } from "../reference/backend.ts";
import { f32 } from "../spec.ts";
import { type GenerateOptions, generate } from "./generate.ts";
import { languageModel } from "./language-model.ts";
import { Sampler, sampleToken } from "./sampler.ts";

const model = languageModel({
  mixers: ["sisa"],
  vocabularySize: 23,
  width: 8,
  heads: 2,
  feedForwardWidth: 8,
  stateWidth: 4,
  form: "exact",
  maximumLength: 24,
  ropeBase: 1e4,
  normEpsilon: 1e-6,
});
const parameters = initialize(model, 1);

async function all(options: Partial<GenerateOptions> = {}): Promise<number[]> {
  await using backend = reference();
  const tokens: number[] = [];
  for await (const token of generate({ model, parameters, backend, tokens: [1, 2], maxTokens: 8, ...options })) {
    tokens.push(token);
  }
  return tokens;
}

/** A backend that says that its tensors lie on a device. */
function onDevice(backend: Backend): Backend {
  return new Proxy(backend, {
    get(target, name) {
      if (name === "limits") return { ...target.limits, hostMemory: false };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

describe("generate", () => {
  test("the same seed gives the same tokens, another seed others", async () => {
    const first = await all({ seed: 3 });
    expect(first).toHaveLength(8);
    expect(await all({ seed: 3 })).toEqual(first);
    expect(await all({ seed: 4 })).not.toEqual(first);
  });

  test("temperature 0 does not depend on the seed", async () => {
    expect(await all({ temperature: 0, seed: 1 })).toEqual(await all({ temperature: 0, seed: 2 }));
  });

  test("ends before a stop token", async () => {
    const free = await all({ seed: 3 });
    const stop = free[4] ?? 0;
    expect(await all({ seed: 3, stopTokens: [stop] })).toEqual(free.slice(0, free.indexOf(stop)));
  });

  test("ends where the model's length ends", async () => {
    expect(await all({ maxTokens: 1000 })).toHaveLength(22);
  });

  test("can be aborted", async () => {
    const controller = new AbortController();
    controller.abort(new Error("enough"));
    await expect(all({ signal: controller.signal })).rejects.toThrow("enough");
  });

  test("gives back what it held on the backend", async () => {
    await using backend = reference();
    for await (const _ of generate({ model, parameters, backend, tokens: [1], maxTokens: 2 }));
    expect(backend.memory().deviceBytes).toBe(0);
    for await (const _ of generate({ model, parameters, backend, tokens: [1], maxTokens: 9 })) break;
    expect(backend.memory().deviceBytes).toBe(0);
  });

  test("refuses impossible options", async () => {
    await expect(all({ tokens: [] })).rejects.toThrow(DataError);
    await expect(all({ tokens: new Array(25).fill(1) })).rejects.toThrow("25 tokens, more than the 24 that fit");
    await expect(all({ temperature: -1 })).rejects.toThrow("temperature must be a number >= 0, got -1");
    await expect(all({ topK: 1.5 })).rejects.toThrow(ConfigError);
    await expect(all({ topP: 0 })).rejects.toThrow("topP must be above 0 and at most 1, got 0");
  });
});

describe("sampleToken", () => {
  const logits = [1, 3, 2, 3, Number.NEGATIVE_INFINITY];
  const draw = (options: Parameters<typeof sampleToken>[2], count = 400) =>
    new Set(Array.from({ length: count }, (_, index) => sampleToken(logits, index / count, options)));

  test("temperature 0 takes the first of the largest", () => {
    expect(sampleToken(logits, 0.99, { temperature: 0 })).toBe(1);
  });

  test("draws in proportion to e^(logit / temperature), never what is impossible", () => {
    const drawn = Array.from({ length: 10_000 }, (_, index) => sampleToken(logits, index / 10_000, { temperature: 2 }));
    const weights = logits.map((logit) => Math.exp(logit / 2));
    const total = weights.reduce((a, b) => a + b, 0);
    for (const [id, weight] of weights.entries()) {
      expect(drawn.filter((token) => token === id).length).toBeCloseTo((10_000 * weight) / total, -1);
    }
  });

  test("top-k keeps the k most likely, by id where equal", () => {
    expect(draw({ topK: 1 })).toEqual(new Set([1]));
    expect(draw({ topK: 3 })).toEqual(new Set([1, 3, 2]));
    expect(draw({ topK: 99 })).toEqual(new Set([0, 1, 2, 3]));
  });

  test("top-p keeps the fewest that reach it", () => {
    expect(draw({ topP: 0.3 })).toEqual(new Set([1]));
    expect(draw({ topP: 0.7 })).toEqual(new Set([1, 3]));
    expect(draw({ topP: 0.9 })).toEqual(new Set([1, 3, 2]));
  });

  test("a tiny temperature does not overflow", () => {
    expect(draw({ temperature: 1e-30 })).toEqual(new Set([1, 3]));
  });
});

describe("logits that allow no choice are refused", () => {
  test.each([
    ["NaN", [1, Number.NaN, 2]],
    ["NaN in front", [Number.NaN, 1, 2]],
    ["+Infinity", [1, Number.POSITIVE_INFINITY]],
    ["nothing possible", [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]],
    ["no logits", []],
  ])("%s", (_name, logits) => {
    for (const temperature of [0, 1]) {
      expect(() => sampleToken(logits, 0.5, { temperature })).toThrow("sampling: expected logits that are numbers");
    }
  });
});

describe("choosing on a device", () => {
  test("takes the tokens that the host takes, over many seeds", async () => {
    await using device = onDevice(reference());
    const [rows, size] = [40, 60];
    await using sampler = await Sampler.create(device, rows, size);
    for (const seed of [1, 2, 3, 4]) {
      const logits = new RandomStream(seed, "logits").normal(rows * size, { deviation: seed });
      const random = new RandomStream(seed, "sample");
      const choices = Array.from({ length: rows }, (_, row) => ({
        uniform: random.uniform(row),
        temperature: [1, 0, 0.5, 2][row % 4] ?? 1,
        topK: [0, 5, 1, 60, 17][row % 5] ?? 0,
        topP: [1, 0.9, 0.3][row % 3] ?? 1,
      }));
      const tokens = await sampler.choose(device.tensor(f32(rows, size), logits), choices);
      expect(tokens).toEqual(
        choices.map((choice, row) =>
          sampleToken(logits.subarray(row * size, (row + 1) * size), choice.uniform, choice),
        ),
      );
    }
  });

  test("gives the text that the host gives, with the same seed", async () => {
    const options = { seed: 5, temperature: 0.9, topK: 9, topP: 0.95, maxTokens: 12 };
    await using device = onDevice(reference());
    const tokens: number[] = [];
    for await (const token of generate({ model, parameters, backend: device, tokens: [1, 2], ...options })) {
      tokens.push(token);
    }
    expect(tokens).toEqual(await all(options));
    expect(device.memory().deviceBytes).toBe(0);
  });

  test("refuses what is wrong", async () => {
    await using device = onDevice(reference());
    await using sampler = await Sampler.create(device, 2, 3);
    const logits = device.tensor(f32(2, 3), Float32Array.of(1, Number.NaN, 2, 0, 0, 9));
    expect(await sampler.choose(logits, [{ uniform: 0.5 }, { uniform: 0.5 }])).toEqual([-1, 2]);
    await expect(sampler.choose(logits, [{ uniform: 0.5 }])).rejects.toThrow(
      "expected 2 choices, one for each row, got 1",
    );
    const wrong = { uniform: 0.5, topP: 2 };
    await expect(sampler.choose(logits, [wrong, wrong])).rejects.toThrow("topP must be above 0 and at most 1, got 2");
  });
});
