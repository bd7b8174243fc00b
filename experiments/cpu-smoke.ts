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
    // Four pairs in sixteen tokens, then the value of each key is asked for once.
    recall: {
      data: { synthetic: "mqar", sequenceLength: 16, vocabularySize: 16 },
      model: { maximumLength: 128 },
      microBatchSize: 16,
      tokens: 200_000,
      evaluateEvery: 100,
      tasks: ["mqar"],
      taskOptions: { lengths: [16] },
    },
  },
});
