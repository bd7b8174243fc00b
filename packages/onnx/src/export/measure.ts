// How far exported files are from the model they come from: in logits, and in the loss on a held-out text.

import { DataError, i32 } from "@sisa/core";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { onnxruntime } from "../backend.ts";
import { asBuffer, importRuntime } from "../runtime.ts";
import type { ModelToExport } from "./export-onnx.ts";

/** What is measured of one file, over all positions of the held-out windows. */
export interface Difference {
  /** Mean and largest absolute difference of a logit from the model's. */
  readonly meanLogitDifference: number;
  /** Of any logit at any position. */
  readonly largestLogitDifference: number;
  /** Share of positions at which the same token is the likeliest, 0 to 1. */
  readonly sameToken: number;
  /** Mean cross-entropy of the next token in nats, by the file and by the model itself. */
  readonly heldOutLoss: number;
  /** The same of the model itself. */
  readonly originalLoss: number;
}

/** Tokens of one window at most, and how many windows at most. */
const windowLength = 256;
const mostWindows = 8;

interface Window {
  readonly ids: Int32Array;
  readonly targets: Int32Array;
  /** [T, V], by the graph that training uses. */
  readonly logits: Float32Array;
}

/** The held-out windows with the model's own logits. @throws DataError for a text of less than two tokens */
async function windowsOf({ model, parameters }: ModelToExport, tokens: ArrayLike<number>): Promise<readonly Window[]> {
  const length = Math.min(windowLength, model.config.maximumLength, tokens.length - 1);
  if (length < 1) throw new DataError(`export: expected a held-out text of at least 2 tokens, got ${tokens.length}`);
  const count = Math.min(mostWindows, Math.floor((tokens.length - 1) / length));
  await using backend = await onnxruntime();
  const graph = model.logitsGraph();
  const constants = Object.fromEntries(Object.keys(graph.inputs).map((name) => [name, parameters[name]]));
  const executable = await backend.compile(graph, { constants });
  const windows: Window[] = [];
  for (let index = 0; index < count; index++) {
    const start = Math.floor((index * (tokens.length - 1)) / count);
    const part = (offset: number) => Int32Array.from({ length }, (_, i) => tokens[start + offset + i] ?? 0);
    const ids = part(0);
    const feeds = { ids: backend.tensor(i32(1, length), ids) };
    const logits = (await executable.run(feeds as never).logits.read()) as Float32Array;
    windows.push({ ids, targets: part(1), logits });
  }
  return windows;
}

/**
 * Measures a growing decoder against the model.
 *
 * @param beside files that it reads its weights from, by their names
 * @param tokens of a text that the model was not trained on
 */
export async function measureDecoder(
  source: ModelToExport,
  decoder: Uint8Array,
  beside: { readonly [location: string]: Uint8Array },
  tokens: ArrayLike<number>,
): Promise<Difference> {
  const windows = await windowsOf(source, tokens);
  const { InferenceSession, Tensor } = await importRuntime();
  const externalData = Object.entries(beside).map(([path, data]) => ({ path, data: asBuffer(data) }));
  const session = await InferenceSession.create(decoder, { logSeverityLevel: 4, externalData });
  const { config, prefix } = source.model;
  const sums = new Sums(config.vocabularySize);
  for (const window of windows) {
    const { logits } = await session.run(wholeFeeds(session, Tensor, [...prefix, ...window.ids]));
    const values = logits?.data as Float32Array;
    sums.add(window, values.subarray(prefix.length * config.vocabularySize));
  }
  await session.release();
  return sums.difference;
}

/** One row from its first position on: empty caches, states of zeros, nothing masked. */
function wholeFeeds(
  session: InferenceSession,
  TensorOf: new (type: Tensor.Type, data: Tensor.DataType, dims: readonly number[]) => Tensor,
  ids: readonly number[],
): Record<string, Tensor> {
  const int64 = (of: (index: number) => number) =>
    new TensorOf(
      "int64",
      BigInt64Array.from(ids.keys(), (index) => BigInt(of(index))),
      [1, ids.length],
    );
  const feeds: Record<string, Tensor> = {
    input_ids: int64((index) => ids[index] ?? 0),
    attention_mask: int64(() => 1),
    position_ids: int64((index) => index),
  };
  for (const input of session.inputMetadata) {
    if (!input.isTensor || !input.name.startsWith("past_")) continue;
    const dims = input.shape.map((size) => (typeof size === "number" ? size : size === "batch_size" ? 1 : 0));
    feeds[input.name] = new TensorOf("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
  }
  return Object.fromEntries(Object.entries(feeds).filter(([name]) => session.inputNames.includes(name)));
}

class Sums {
  readonly #width: number;
  #positions = 0;
  #total = 0;
  #largest = 0;
  #same = 0;
  #loss = 0;
  #originalLoss = 0;

  constructor(vocabularySize: number) {
    this.#width = vocabularySize;
  }

  add({ targets, logits: expected }: Window, actual: Float32Array): void {
    for (const [position, target] of targets.entries()) {
      const row = (values: Float32Array) => values.subarray(position * this.#width, (position + 1) * this.#width);
      const [a, b] = [row(actual), row(expected)];
      for (let i = 0; i < this.#width; i++) {
        const distance = Math.abs((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN));
        this.#total += distance;
        this.#largest = Math.max(this.#largest, distance);
      }
      const [own, original] = [summaryOf(a), summaryOf(b)];
      if (own.likeliest === original.likeliest) this.#same++;
      this.#loss += own.logSumExp - (a[target] ?? Number.NaN);
      this.#originalLoss += original.logSumExp - (b[target] ?? Number.NaN);
      this.#positions++;
    }
  }

  get difference(): Difference {
    return {
      meanLogitDifference: this.#total / (this.#positions * this.#width),
      largestLogitDifference: this.#largest,
      sameToken: this.#same / this.#positions,
      heldOutLoss: this.#loss / this.#positions,
      originalLoss: this.#originalLoss / this.#positions,
    };
  }
}

function summaryOf(logits: Float32Array): { readonly likeliest: number; readonly logSumExp: number } {
  let likeliest = 0;
  for (const [index, value] of logits.entries()) if (value > (logits[likeliest] ?? 0)) likeliest = index;
  const largest = logits[likeliest] ?? 0;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - largest);
  return { likeliest, logSumExp: largest + Math.log(sum) };
}
