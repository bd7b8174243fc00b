// A training step as `train` takes it, on tokens drawn at random, and the time of its parts.

import {
  type Backend,
  type DeviceTensor,
  f32,
  type GraphInputs,
  i32,
  initialize,
  type LanguageModel,
  parameterCount,
  RandomStream,
  simplify,
} from "@sisa/core";
import { resolveSettings } from "../../packages/train/src/config/settings.ts";
import { accumulateGraph, stateName, updateGraph } from "../../packages/train/src/training-graphs.ts";

export const optimizer = { learningRate: 3e-4, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };

/** Sequences of a step and their tokens. */
export interface BatchSizes {
  readonly batch: number;
  readonly length: number;
}

export const parts = ["step", "forward", "backward", "gradients", "update"] as const;
export type Part = (typeof parts)[number];

/** Seconds of each part, one entry a measurement. */
export class Times {
  readonly #of = new Map<Part, number[]>();

  clear(): void {
    this.#of.clear();
  }

  add(part: Part, seconds: number): void {
    this.#of.set(part, [...(this.#of.get(part) ?? []), seconds]);
  }

  /** Forward and backward are one program on our side, so its backward pass is what is left without the forward pass. */
  summary(statistic: (values: readonly number[]) => number): Record<Part, number> {
    const of = (part: Part) => statistic(this.#of.get(part) ?? []);
    const backward = this.#of.has("backward") ? of("backward") : of("gradients") - of("forward");
    return { step: of("step"), forward: of("forward"), backward, gradients: of("gradients"), update: of("update") };
  }
}

export interface Data {
  readonly parameters: { readonly [name: string]: Float32Array };
  readonly ids: Int32Array;
  readonly targets: Int32Array;
}

export interface Side {
  readonly firstLoss: number;
  readonly times: Times;
  steps(count: number): Promise<void>;
  forward(count: number): Promise<void>;
}

export function makeData(model: LanguageModel, { batch, length }: BatchSizes): Data {
  const { vocabularySize } = model.config;
  const random = new RandomStream(1, "tokens");
  const tokens = Int32Array.from({ length: batch * (length + 1) }, (_, index) => random.below(vocabularySize, index));
  const rows = (first: number) =>
    Int32Array.from({ length: batch * length }, (_, index) => {
      const row = Math.floor(index / length);
      return tokens[row * (length + 1) + first + (index % length)] ?? 0;
    });
  return { parameters: initialize(model, 1), ids: rows(0), targets: rows(1) };
}

export async function ourSide(
  backend: Backend,
  model: LanguageModel,
  data: Data,
  { batch, length }: BatchSizes,
): Promise<Side> {
  const settings = resolveSettings(
    { steps: 1000, gradientAccumulation: 1, optimizer },
    { parameterCount: parameterCount(model) },
  );
  const sizes = { B: batch, T: length };
  const accumulateProgram = accumulateGraph(model, 1);
  const updateProgram = updateGraph(model, settings);
  const accumulate = await backend.compile(accumulateProgram.graph.bind(sizes), { state: accumulateProgram.state });
  const update = await backend.compile(updateProgram.graph, { state: updateProgram.state });
  const lossOnly = await backend.compile(simplify(model.lossGraph().bind(sizes)));

  const batchTensors: Record<string, DeviceTensor> = {
    ids: backend.tensor(i32(batch, length), data.ids),
    targets: backend.tensor(i32(batch, length), data.targets),
  };
  const parameters: Record<string, DeviceTensor> = {};
  const moments: Record<string, DeviceTensor> = {};
  for (const [name, { shape }] of Object.entries(model.parameters)) {
    const spec = f32(...shape);
    parameters[name] = backend.tensor(spec, data.parameters[name]);
    moments[stateName.firstMoment(name)] = backend.tensor(spec);
    moments[stateName.secondMoment(name)] = backend.tensor(spec);
  }
  const rates = backend.tensor(f32(3));
  const halted = backend.tensor({ dtype: "bool", shape: [] });
  const times = new Times();
  let stepsDone = 0;

  const lossOf = async () => {
    const { value } = lossOnly.run({ ...batchTensors, ...parameters } as Record<keyof GraphInputs, DeviceTensor>);
    return (await value.read())[0] ?? Number.NaN;
  };

  return {
    firstLoss: await lossOf(),
    times,
    async steps(count) {
      for (let step = 0; step < count; step++) {
        stepsDone += 1;
        const start = performance.now();
        const corrections = [1 - optimizer.beta1 ** stepsDone, 1 - optimizer.beta2 ** stepsDone];
        backend.write(rates, Float32Array.of(optimizer.learningRate, ...corrections));
        const sums = accumulate.run({ ...batchTensors, ...parameters });
        await sums[stateName.loss]?.read();
        const middle = performance.now();
        const { report } = update.run({ ...sums, ...parameters, ...moments, rates, [stateName.halted]: halted });
        const [, , proceeded] = (await report?.read()) ?? [];
        const end = performance.now();
        if (proceeded !== 1) throw new Error("our step was not taken: loss or gradients are not finite");
        times.add("step", (end - start) / 1000);
        times.add("gradients", (middle - start) / 1000);
        times.add("update", (end - middle) / 1000);
      }
    },
    async forward(count) {
      for (let run = 0; run < count; run++) {
        const start = performance.now();
        await lossOf();
        times.add("forward", (performance.now() - start) / 1000);
      }
    },
  };
}
