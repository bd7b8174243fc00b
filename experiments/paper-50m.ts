// The 50M rows of the paper (arXiv:2606.02332) to step 1000, on one GPU. See docs/measuring.md for what it needs.
//
//   npm run sisa -- experiment experiments/paper-50m.ts
//
// With SISA_EXPERIMENT=proof it is a hundred steps of the full size, for their throughput; with SISA_EXPERIMENT=reduced the
// same workload runs small, on the CPU, to prove the way through it.
import { defineExperiment, type WorkloadInput } from "@sisa/cli/config";

/** The paper's recipe; the run is the beginning of its 9,536 steps. */
const paper: WorkloadInput = {
  data: { shards: "data/slimpajama", sequenceLength: 2048 },
  backend: "cuda",
  steps: 1000,
  batchTokens: 524_288,
  microBatchSize: 8,
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
  taskOptions: { lengths: [512, 2048], limit: 200 },
};

const sizes = { full: paper, proof, reduced: small };
const size = process.env.SISA_EXPERIMENT ?? "full";
if (size !== "full" && size !== "proof" && size !== "reduced") {
  throw new Error(`SISA_EXPERIMENT: expected "proof" or "reduced", or nothing; got "${size}"`);
}

export default defineExperiment({
  name: size === "full" ? "paper-50m" : `paper-50m-${size}`,
  families: ["transformer", "sisa", "mamba2", "mamba3"],
  sizes: ["50m"],
  seeds: [0],
  sets: ["data/sets"],
  common: sizes[size],
  workloads:
    size === "reduced"
      ? // CPUs have float32 only; stock attention is there.
        { float32: {}, paper: { model: { form: "sdpa" } } }
      : {
          // Parameters and moments in float32, products and activations in bfloat16.
          bfloat16: { precision: "bfloat16" },
          // As the paper's code: parameters, gradients and moments in bfloat16 too, and stock attention.
          paper: { precision: "paper", model: { form: "sdpa" } },
        },
});
