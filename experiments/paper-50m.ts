// The 50M rows of the paper (arXiv:2606.02332) to step 1000, on one GPU. See docs/measuring.md for what it needs.
//
//   npm run sisa -- experiment experiments/paper-50m.ts
//
// With SISA_EXPERIMENT=proof it is a hundred steps of the full size, for their throughput. With SISA_EXPERIMENT=short it is a
// thousand steps with an eighth of the tokens each, for needles and recall within minutes. With SISA_EXPERIMENT=reduced the
// same workload runs small, on the CPU, to prove the way through it.
import { defineExperiment, type WorkloadInput } from "@sisa/cli/config";

/** The paper's recipe; the run is the beginning of its 9,536 steps. */
const paper: WorkloadInput = {
  data: { shards: "data/slimpajama", sequenceLength: 2048 },
  backend: "cuda",
  steps: 1000,
  batchTokens: 524_288,
  microBatchSize: 16,
  optimizer: {
    learningRate: 6e-4,
    warmupSteps: 500,
    scheduleSteps: 9536,
    weightDecay: 0.1,
    beta1: 0.9,
    beta2: 0.95,
    clipNorm: 1,
  },
  evaluateEvery: 250,
  saveEvery: 50,
  tasks: ["niah", "lambada"],
  finalTasks: ["niah:grid", "hellaswag", "arc_easy", "winogrande"],
  taskOptions: { lengths: [256, 512, 1024, 2048] },
};

/** The same, a hundred times smaller in every direction. */
const small: WorkloadInput = {
  ...paper,
  model: { layers: 2, width: 32, heads: 2, stateWidth: 4, maximumLength: 640 },
  data: { shards: "data/slimpajama", sequenceLength: 64 },
  backend: "onnxruntime",
  steps: 8,
  batchTokens: 256,
  microBatchSize: 2,
  optimizer: { ...paper.optimizer, warmupSteps: 4, scheduleSteps: 16 },
  evaluateEvery: 2,
  saveEvery: 2,
  taskOptions: { lengths: [256], limit: 4 },
};

/** A hundred steps, which say how fast it is and that every part of it works; not what is learnt. */
const proof: WorkloadInput = {
  ...paper,
  steps: 100,
  evaluateEvery: 50,
  finalTasks: ["niah:grid"],
  taskOptions: { lengths: [512, 1024, 2048] },
};

/** As many steps as the paper's rows, from text that a small machine can hold: 66M tokens. */
const short: WorkloadInput = {
  ...paper,
  batchTokens: 65_536,
  precision: "bfloat16",
  optimizer: { ...paper.optimizer, warmupSteps: 100, scheduleSteps: 1000 },
  saveEvery: 500,
  finalTasks: ["niah:grid"],
  taskOptions: { lengths: [512, 1024, 2048] },
};

/** What the sizes train on, by the name of SISA_EXPERIMENT. */
const workloads: Record<string, Record<string, WorkloadInput>> = {
  full: ofPrecisions(paper),
  proof: ofPrecisions(proof),
  short: {
    text: short,
    // 32 pairs of 128 keys and 128 values, then the value of each key is asked for once.
    recall: {
      ...short,
      data: { synthetic: "mqar", sequenceLength: 128, vocabularySize: 256 },
      batchTokens: 16_384,
      microBatchSize: 128,
      tasks: ["mqar"],
      finalTasks: [],
      taskOptions: { lengths: [128] },
    },
  },
  // CPUs have float32 only; stock attention is there.
  reduced: { float32: small, paper: { ...small, model: { ...small.model, form: "sdpa" } } },
};

/** Parameters and moments in float32, or as the paper's code: parameters, gradients and moments in bfloat16, stock attention. */
function ofPrecisions(workload: WorkloadInput): Record<string, WorkloadInput> {
  return {
    bfloat16: { ...workload, precision: "bfloat16" },
    paper: { ...workload, precision: "paper", model: { form: "sdpa" } },
  };
}

const size = process.env.SISA_EXPERIMENT ?? "full";
const chosen = workloads[size];
if (chosen === undefined) {
  throw new Error(`SISA_EXPERIMENT: expected "proof", "short" or "reduced", or nothing; got "${size}"`);
}

export default defineExperiment({
  name: size === "full" ? "paper-50m" : `paper-50m-${size}`,
  families: ["transformer", "sisa", "mamba2", "mamba3"],
  sizes: ["50m"],
  seeds: [0],
  sets: ["data/sets"],
  workloads: chosen,
});
