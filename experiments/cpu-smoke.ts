// Minutes on two cores: families of about 1M parameters on real text and on associative recall, three seeds each.
//
//   npm run sisa -- experiment experiments/cpu-smoke.ts
import { defineExperiment } from "@sisa/cli/config";

export default defineExperiment({
  families: ["sisa", "transformer"],
  sizes: ["1m"],
  seeds: [0, 1, 2],
  workloads: {
    // English and TypeScript that every installation of this workspace has, in bytes.
    text: {
      data: { text: "node_modules/@types/node", sequenceLength: 128 },
      model: { maximumLength: 256 },
      microBatchSize: 8,
      tokens: 200_000,
      evaluateEvery: 40,
    },
    // Four pairs in sixteen tokens: the value of each key is asked for once.
    recall: {
      data: { synthetic: "mqar", sequenceLength: 16, vocabularySize: 32 },
      model: { maximumLength: 128 },
      microBatchSize: 64,
      tokens: 350_000,
      evaluateEvery: 50,
      tasks: ["mqar"],
      taskOptions: { lengths: [16] },
    },
  },
});
