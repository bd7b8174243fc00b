// Decoding of batches of unequal lengths, for tests in all runtimes: what goes in, and what the trainer's graph says of it.

import {
  type AttentionSettings,
  i32,
  initialize,
  type LanguageModel,
  type ModelConfig,
  preset,
  RandomStream,
} from "@sisa/core";
import type { InferenceSession, Tensor } from "onnxruntime-node";

export const vocabularySize = 31;
export const maximumLength = 160;
export const steps = 64;
/** Prompts on both sides of a block of 64, and one token alone. */
export const lengths = [5, 70, 1, 64];
export const longest = Math.max(...lengths);

const sizes = { vocabularySize, width: 16, heads: 2, layers: 2, stateWidth: 4, maximumLength };
const base = preset("sisa", "1m", sizes);
const states = { stateWidth: 4, innerWidth: 32, headWidth: 8 };

/** A model of every kind that is exported. */
export const models = {
  sisa: base,
  transformer: preset("transformer", "1m", sizes),
  mixed: { ...base, mixers: ["attention", "sisa"] as readonly string[] },
  grouped: ofAttention({ keyValueHeads: 1, keyWidth: 6, headWidth: 10 }),
  fox: ofAttention({ positions: "none", forget: true }),
  "fox pro": ofAttention({ positions: "none", forget: true, queryKeyNorm: true, shift: true, outputGate: true }),
  alibi: ofAttention({ positions: "alibi" }),
  window: ofAttention({ window: 20 }),
  mamba2: { ...base, mixers: ["mamba2", "mamba2"], mixerSettings: { mamba2: { kind: "mamba2", ...states } } },
  mamba3: {
    ...base,
    mixers: ["mamba3", "mimo"],
    mixerSettings: { mamba3: { kind: "mamba3", ...states }, mimo: { kind: "mamba3", ...states, rank: 2 } },
  },
  "hybrid by layer": {
    ...base,
    mixers: ["mamba2", "sisa"],
    mixerSettings: { mamba2: { kind: "mamba2", ...states, groups: 2 } },
    feedForwards: ["routed", "dense"],
    experts: { count: 3, perToken: 2 },
  },
  "hybrid by head": {
    ...base,
    mixers: ["near+mamba2", "attention+mamba2"],
    mixerSettings: {
      near: { kind: "attention", window: 20, headWidth: 16 },
      attention: { kind: "attention", headWidth: 16 },
      mamba2: { kind: "mamba2", ...states },
    },
    combination: "mean",
    metaTokens: 3,
  },
} as const satisfies Record<string, ModelConfig>;

function ofAttention(settings: AttentionSettings): ModelConfig {
  const mixerSettings = { attention: { kind: "attention", ...settings } } as const;
  return { ...base, mixers: ["attention", "attention"], mixerSettings };
}

export const rows = lengths.map((length, row) => {
  const random = new RandomStream(row, "ids");
  return Array.from({ length: length + steps }, (_, index) => random.below(vocabularySize, index));
});

/**
 * Weights ten times as large as at first, so that decays and phases matter; lambda four times, and the vectors that make
 * scores only five times, so that importance outweighs content without scores growing.
 */
export function largeParameters(model: LanguageModel): Record<string, Float32Array> {
  const parameters = initialize(model, 7);
  for (const [name, values] of Object.entries(parameters)) {
    const factor = /W_[QKBC]\b/.test(name) ? 5 : /embed|theta|alpha|W_/.test(name) ? 10 : 1;
    parameters[name] = values.map((value) => value * factor);
    if (name.endsWith("alpha_proj.bias")) parameters[name] = values.map((_, head) => -5 + 4 * head);
    if (name.endsWith("lambda_raw")) parameters[name] = values.map(() => 1);
  }
  return parameters;
}

/** Logits of every position of each row, as the trainer computes them. */
export async function trainerLogits(
  model: LanguageModel,
  parameters: Record<string, Float32Array>,
): Promise<readonly Float32Array[]> {
  const { onnxruntime } = await import("../index.ts");
  await using backend = await onnxruntime({ threads: 1 });
  const graph = model.logitsGraph();
  const constants = Object.fromEntries(Object.keys(graph.inputs).map((name) => [name, parameters[name]]));
  const executable = await backend.compile(graph, { constants });
  const result: Float32Array[] = [];
  for (const ids of rows) {
    const feeds = { ids: backend.tensor(i32(1, ids.length), Int32Array.from(ids)) };
    result.push((await executable.run(feeds as never).logits.read()) as Float32Array);
  }
  return result;
}

/** What onnxruntime-node and onnxruntime-web both export. */
export interface Ort {
  readonly Tensor: typeof Tensor;
}

export function int64({ Tensor }: Ort, values: readonly number[], dims: readonly number[]): Tensor {
  return new Tensor("int64", BigInt64Array.from(values, BigInt), dims);
}

/** Zeros for every cache and state. */
export function emptyCaches(
  { Tensor }: Ort,
  session: InferenceSession,
  batch: number,
  length: number,
): Record<string, Tensor> {
  const caches: Record<string, Tensor> = {};
  for (const input of session.inputMetadata) {
    if (!input.isTensor || !input.name.startsWith("past_")) continue;
    const dims = input.shape.map((size) => (typeof size === "number" ? size : size === "batch_size" ? batch : length));
    const count = dims.reduce((a, b) => a * b, 1);
    caches[input.name] = new Tensor("float32", new Float32Array(count), dims);
  }
  return caches;
}

/** What goes in next where an output came out. */
export function pastName(present: string): string {
  return present.replace(/^present_/, "past_").replace(/^present\./, "past_key_values.");
}

/** The largest difference between the logits of `place` among those of a run and those expected after a position. */
export function difference(
  logits: Float32Array,
  place: number,
  expected: readonly Float32Array[],
  row: number,
  position: number,
): number {
  let worst = 0;
  for (let i = 0; i < vocabularySize; i++) {
    const value = logits[place * vocabularySize + i] ?? Number.NaN;
    const distance = Math.abs(value - (expected[row]?.[position * vocabularySize + i] ?? Number.NaN));
    // A NaN stays.
    if (!(distance <= worst)) worst = distance;
  }
  return worst;
}

/**
 * Runs model.onnx over the prompts as one padded batch, then one token of each row at a time.
 * @returns the largest difference from the trainer's logits, over all positions
 */
export async function growingDifference(
  ort: Ort,
  session: InferenceSession,
  expected: readonly Float32Array[],
  {
    side = "left",
    count = steps,
    prefix = [],
  }: { readonly side?: "left" | "right"; readonly count?: number; readonly prefix?: readonly number[] } = {},
): Promise<number> {
  const batch = rows.length;
  const prompts = rows.map((ids, row) => [...prefix, ...ids.slice(0, lengths[row])]);
  const width = prefix.length + longest;
  const placed = (values: readonly number[]) => {
    const padding = new Array<number>(width - values.length).fill(0);
    return side === "left" ? [...padding, ...values] : [...values, ...padding];
  };
  const mask = prompts.map((prompt) => placed(prompt.map(() => 1)));
  let caches = emptyCaches(ort, session, batch, 0);
  const run = async (ids: readonly (readonly number[])[], at: readonly (readonly number[])[]) => {
    const shape = [batch, ids[0]?.length ?? 0];
    const feeds: Record<string, Tensor> = {
      input_ids: int64(ort, ids.flat(), shape),
      attention_mask: int64(ort, mask.flat(), [batch, mask[0]?.length ?? 0]),
      position_ids: int64(ort, at.flat(), shape),
      ...caches,
    };
    // A model without positions does not ask for them.
    const taken = Object.entries(feeds).filter(([name]) => session.inputNames.includes(name));
    const results = await session.run(Object.fromEntries(taken));
    const present = Object.entries(results).filter(([name]) => name.startsWith("present"));
    caches = Object.fromEntries(present.map(([name, tensor]) => [pastName(name), tensor as Tensor]));
    return results.logits?.data as Float32Array;
  };

  const differences: number[] = [];
  const prefill = await run(
    prompts.map(placed),
    prompts.map((prompt) => placed([...prompt.keys()])),
  );
  for (const [row, length] of lengths.entries()) {
    const first = row * width + prefix.length + (side === "left" ? longest - length : 0);
    for (let position = 0; position < length; position++) {
      differences.push(difference(prefill, first + position, expected, row, position));
    }
  }
  for (let step = 0; step < count; step++) {
    for (const kept of mask) kept.push(1);
    const at = lengths.map((length) => length + step);
    const logits = await run(
      rows.map((ids, row) => [ids[at[row] ?? 0] ?? 0]),
      at.map((position) => [prefix.length + position]),
    );
    for (const [row, position] of at.entries()) differences.push(difference(logits, row, expected, row, position));
  }
  return Math.max(...differences);
}
