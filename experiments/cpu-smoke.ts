// Minutes on two cores: models of about 1M parameters on real text and on associative recall, three seeds each.
// docs/measuring.md has the table, and says which text was read.
//
//   npm run sisa -- experiment experiments/cpu-smoke.ts
import { defineExperiment } from "@sisa/cli/config";

export default defineExperiment({
  families: ["sisa", "transformer", "fox", "mamba2", "mamba3"],
  sizes: ["1m"],
  seeds: [0, 1, 2],
  workloads: {
    text: {
      // In bytes.
      data: { text: "data/shakespeare.txt", sequenceLength: 128 },
      model: { maximumLength: 256 },
      microBatchSize: 8,
      tokens: 200_000,
      evaluateEvery: 50,
    },
    // Two pairs in eight tokens, then the value of each key is asked for once. Four keys and four values.
    recall: {
      data: { synthetic: "mqar", sequenceLength: 8, vocabularySize: 8 },
      model: { maximumLength: 128 },
      microBatchSize: 64,
      tokens: 400_000,
      optimizer: { learningRate: 1e-3 },
      evaluateEvery: 200,
      tasks: ["mqar"],
      taskOptions: { lengths: [8] },
    },
  },
});
