import { type Backend, initialize, languageModel, type ModelConfig, RandomStream, reference } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { describe, expect, it } from "vitest";
import { changed, echoModel, echoScorer, repeated } from "../../test/echo-model.ts";
import { continuationRow, rowFrom } from "./rows.ts";
import { type ScoredRow, Scorer } from "./scorer.ts";

const config: ModelConfig = {
  mixers: ["sisa", "attention"],
  vocabularySize: 50,
  width: 16,
  heads: 2,
  feedForwardWidth: 24,
  stateWidth: 4,
  form: "exact",
  maximumLength: 160,
  ropeBase: 1e4,
  normEpsilon: 1e-6,
};

/** Rows of many lengths, some of them equal, each scored from another place. */
const rows: ScoredRow[] = [5, 9, 5, 80, 3, 9, 9, 81, 159, 5].map((length, row) => {
  const random = new RandomStream(row, "row");
  const ids = Array.from({ length: length + 1 }, (_, index) => random.below(config.vocabularySize, index));
  return rowFrom(ids, 1 + (row % length));
});

/** The backend, saying that it takes bound graphs only, as GPU backends do. */
function boundOnly(backend: Backend): Backend {
  return new Proxy(backend, {
    get(target, name) {
      if (name === "limits") return { ...target.limits, symbolicDims: false };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function scoresOf(scorer: Scorer): Promise<{ logProbability: number; correct: number }[]> {
  const scores: { logProbability: number; correct: number }[] = [];
  for (const batch of scorer.batches(rows)) {
    const found = await scorer.score(batch.flatMap((index) => rows[index] ?? []));
    for (const [place, index] of batch.entries()) if (found[place] !== undefined) scores[index] = found[place];
  }
  return scores;
}

describe("scores do not depend on what is scored together", () => {
  it.each<[string, ModelConfig["form"], () => Promise<Backend>]>([
    ["reference", "exact", async () => reference()],
    ["onnxruntime", "exact", () => onnxruntime()],
    ["onnxruntime", "sdpa", () => onnxruntime()],
    ["a backend with bound graphs", "exact", async () => boundOnly(await onnxruntime())],
    ["a backend with bound graphs", "sdpa", async () => boundOnly(await onnxruntime())],
  ])("%s, %s", async (_, form, open) => {
    await using backend = await open();
    const model = languageModel({ ...config, form });
    const parameters = initialize(model, 1);
    // A decay so strong that form "sdpa" clamps, and would see what stands behind a row.
    for (const [name, values] of Object.entries(parameters)) if (name.endsWith("alpha_proj.bias")) values.fill(0);
    await using single = new Scorer({ model, parameters, backend: reference(), tokensPerRun: 1 });
    await using batched = new Scorer({ model, parameters, backend, tokensPerRun: 200 });
    const alone = await scoresOf(single);
    const together = await scoresOf(batched);
    expect(together).toHaveLength(rows.length);
    for (const [index, { logProbability, correct }] of together.entries()) {
      expect(logProbability).toBeCloseTo(alone[index]?.logProbability ?? Number.NaN, 3);
      expect(correct).toBe(alone[index]?.correct);
    }
  });
});

it("puts rows of one length together, shortest first, and each row once", () => {
  const scorer = echoScorer(reference());
  const lengths = scorer.batches(rows).map((batch) => batch.map((index) => rows[index]?.ids.length));
  expect(lengths).toEqual([[3], [5, 5, 5], [9, 9, 9], [80], [81], [159]]);
  expect(
    scorer
      .batches(rows)
      .flat()
      .sort((a, b) => a - b),
  ).toEqual(rows.map((_, index) => index));
  const small = new Scorer({ model: scorer.model, parameters: {}, backend: reference(), tokensPerRun: 10 });
  expect(small.batches(rows).map((batch) => batch.length)).toEqual([1, 2, 1, 1, 1, 1, 1, 1, 1]);
});

it("gives the log-probabilities of a model that is known", async () => {
  await using scorer = echoScorer(reference());
  const [mixed, last] = await scorer.score([rowFrom([7, 7, 7, 8, 8], 1), continuationRow([1, 2, 3], [3], 4)]);
  expect(mixed?.logProbability).toBeCloseTo(3 * repeated + changed, 4);
  expect(mixed?.correct).toBe(3);
  expect(last).toEqual({ logProbability: expect.closeTo(repeated, 5), correct: 1 });
});

it("reads parameters on the backend anew at every run", async () => {
  await using backend = reference();
  const { model, parameters } = echoModel();
  const tensors = Object.fromEntries(
    Object.entries(parameters).map(([name, values]) => [
      name,
      backend.tensor({ dtype: "float32", shape: model.scoreGraph().inputs[name]?.shape ?? [] }, values),
    ]),
  );
  await using scorer = new Scorer({ model, parameters: tensors, backend });
  const row = rowFrom([7, 7], 1);
  expect((await scorer.score([row]))[0]?.logProbability).toBeCloseTo(repeated, 5);
  const embedding = tensors["embed.weight"];
  if (embedding !== undefined) backend.write(embedding, new Float32Array(258 * 258));
  expect((await scorer.score([row]))[0]?.logProbability).toBeCloseTo(-Math.log(258), 5);
});
