import { expect, it } from "vitest";
import { trace } from "../graph/graph.ts";
import { initialize } from "../layers/layer.ts";
import { RandomStream } from "../random.ts";
import { reference } from "../reference/backend.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32, i32 } from "../spec.ts";
import { languageModel } from "./language-model.ts";
import { tokenScores } from "./token-scores.ts";

const vocabularySize = 19;
const model = languageModel({
  mixers: ["sisa", "attention"],
  vocabularySize,
  width: 16,
  heads: 2,
  feedForwardWidth: 12,
  stateWidth: 4,
  maximumLength: 32,
  form: "exact",
  ropeBase: 1e4,
  normEpsilon: 1e-6,
});
const parameters = initialize(model, 5);

it("scores the places it is asked about as a softmax over all logits does", async () => {
  await using backend = reference();
  const ids = Int32Array.from({ length: 2 * 7 }, (_, index) => (index * 5) % vocabularySize);
  const idTensor = backend.tensor(i32(2, 7), ids);
  const full = await backend.compile(model.logitsGraph().bind({ B: 2, T: 7 }), { constants: parameters });
  const logits = await full.run({ ids: idTensor }).logits.read();

  const places = Int32Array.of(13, 0, 8, 8);
  const targets = Int32Array.of(3, 18, 0, 7);
  const scores = await backend.compile(model.scoreGraph(), { constants: parameters });
  const { logProbability, predicted } = scores.run({
    ids: idTensor,
    places: backend.tensor(i32(4), places),
    targets: backend.tensor(i32(4), targets),
  });
  const [logProbabilities, tokens] = await Promise.all([logProbability.read(), predicted.read()]);
  places.forEach((place, index) => {
    const row = Array.from(logits.subarray(place * vocabularySize, (place + 1) * vocabularySize), Number);
    const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
    expect(logProbabilities[index]).toBeCloseTo((row[targets[index] ?? 0] ?? 0) - total, 5);
    expect(tokens[index]).toBe(row.indexOf(Math.max(...row)));
  });
});

it("finds the same in a vocabulary of several chunks, the first of equal ones included", () => {
  const vocabulary = 20_000;
  const weight = new RandomStream(1, "weight").normal(vocabulary * 2);
  // The largest logit of the first place is in the last chunk; the second place has equals in two chunks.
  weight.set([9, 0], 2 * 19_999);
  weight.set([0, 9], 2 * 300);
  weight.set([0, 9], 2 * 9_000);
  const graph = trace(
    { hidden: f32(1, 2, 2), weight: f32(vocabulary, 2), places: i32(2), targets: i32(2) },
    (tensors) => tokenScores(tensors),
  );
  const { logProbability, predicted } = evaluate(graph, {
    hidden: { shape: [1, 2, 2], data: Float64Array.of(1, 0, 0, 1) },
    weight: { shape: [vocabulary, 2], data: Float64Array.from(weight) },
    places: { shape: [2], data: Int32Array.of(0, 1) },
    targets: { shape: [2], data: Int32Array.of(19_999, 17) },
  });
  expect([...(predicted?.data ?? [])]).toEqual([19_999, 300]);
  const total = (axis: number): number => {
    let sum = 0;
    for (let row = 0; row < vocabulary; row++) sum += Math.exp(weight[2 * row + axis] ?? 0);
    return Math.log(sum);
  };
  expect(logProbability?.data[0]).toBeCloseTo(9 - total(0), 9);
  expect(logProbability?.data[1]).toBeCloseTo((weight[2 * 17 + 1] ?? 0) - total(1), 9);
});
