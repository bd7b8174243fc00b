// Minutes on two cores: models of about 1M parameters on real text and on associative recall, three seeds each.
// docs/measuring.md has the table.
//
//   npm run sisa -- experiment experiments/cpu-smoke.ts
import { defineExperiment, type FamilyChoice } from "@sisa/cli/config";

const layers = 4;

/** Another mixer in the blocks of the Transformer, with the feed-forward width that makes the parameters equal. */
const mixer = (name: string, kind: string): Exclude<FamilyChoice, string> => ({
  name,
  family: "transformer",
  mixers: new Array<string>(layers).fill(kind),
});

export default defineExperiment({
  families: [
    "sisa",
    "transformer",
    mixer("mamba2", "mamba2"),
    mixer("mamba3", "mamba3"),
    // FoX: attention that forgets, without positions.
    { ...mixer("fox", "fox"), mixerSettings: { fox: { kind: "attention", forget: true, positions: "none" } } },
  ],
  sizes: ["1m"],
  seeds: [0, 1, 2],
  workloads: {
    // English and TypeScript that every installation of this workspace has, in bytes.
    text: {
      data: { text: "node_modules/@types/node", sequenceLength: 128 },
      model: { maximumLength: 256 },
      microBatchSize: 8,
      tokens: 100_000,
      evaluateEvery: 25,
    },
    // Four pairs in sixteen tokens, then the value of each key is asked for once.
    recall: {
      data: { synthetic: "mqar", sequenceLength: 16, vocabularySize: 32 },
      model: { maximumLength: 128 },
      microBatchSize: 64,
      tokens: 250_000,
      evaluateEvery: 50,
      tasks: ["mqar"],
      taskOptions: { lengths: [16] },
    },
  },
});
