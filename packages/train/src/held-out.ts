// The held-out loss: fixed batches, nats a token, and bits a byte where a tokenizer says how many bytes a token is.
import {
  type Backend,
  type DeviceTensor,
  type Executable,
  i32,
  type LanguageModel,
  type LossGraph,
  type Precision,
  simplify,
} from "@sisa/core";
import type { Tokenizer } from "@sisa/hub";
import { type Batch, heldOutPlan, readBatch } from "./data/batches.ts";
import type { TrainingData } from "./data/training-data.ts";
import { trainingLoss } from "./training-graphs.ts";

/** Batches that a held-out loss is measured on. */
export interface HeldOutBatches {
  /** Rows of each batch. */
  readonly rows: number;
  /** Tokens a row. */
  readonly sequenceLength: number;
  /** Read once, and the same at every measurement. */
  readonly batches: readonly Batch[];
  /** Bytes of text a target token, where they can be counted. */
  readonly bytesPerToken?: number;
}

/** A loss on held-out text. */
export interface HeldOutLoss {
  /** Nats a token. */
  readonly heldOutLoss: number;
  /** The same in bits a byte of text, where bytes can be counted. */
  readonly bitsPerByte?: number;
  /** Nats a token of each batch, for the spread between them. */
  readonly batchLosses: readonly number[];
}

/**
 * The batches of a run, read once.
 *
 * @param sizes.sequenceLength tokens a row
 * @param sizes.microBatchSize rows of each batch at most
 * @param sizes.heldOutBatches how many batches at most
 * @throws DataError where the held-out part is too short
 */
export async function readHeldOut(
  data: TrainingData,
  sizes: { readonly sequenceLength: number; readonly microBatchSize: number; readonly heldOutBatches: number },
): Promise<HeldOutBatches> {
  const { rows, sequenceLength, starts } = heldOutPlan(data.heldOut, sizes);
  const batches = await Promise.all(starts.map((places) => readBatch(data.heldOut, places, sequenceLength)));
  if (data.tokenizer === undefined) {
    const known = data.bytesPerToken === undefined ? {} : { bytesPerToken: data.bytesPerToken };
    return { rows, sequenceLength, batches, ...known };
  }
  let bytes = 0;
  for (const { targets } of batches) {
    for (let row = 0; row < rows; row++) {
      bytes += textBytes(data.tokenizer, targets.subarray(row * sequenceLength, (row + 1) * sequenceLength));
    }
  }
  return { rows, sequenceLength, batches, bytesPerToken: bytes / (batches.length * rows * sequenceLength) };
}

/** Bytes of UTF-8 that ids stand for; end-of-text stands for none. */
export function textBytes(tokenizer: Tokenizer, ids: Int32Array): number {
  return tokenizer.byteLength(ids.filter((id) => id !== tokenizer.endOfText));
}

type LossExecutable = Executable<LossGraph["inputs"], LossGraph["outputs"]>;

/** Measures held-out losses of parameters that lie on a backend. */
export class HeldOutEvaluator {
  readonly #backend: Backend;
  readonly #executable: LossExecutable;
  readonly #heldOut: HeldOutBatches;
  readonly #ids: DeviceTensor;
  readonly #targets: DeviceTensor;

  private constructor(backend: Backend, executable: LossExecutable, heldOut: HeldOutBatches) {
    this.#backend = backend;
    this.#executable = executable;
    this.#heldOut = heldOut;
    const spec = i32(heldOut.rows, heldOut.sequenceLength);
    this.#ids = backend.tensor(spec);
    this.#targets = backend.tensor(spec);
  }

  static async create(
    backend: Backend,
    model: LanguageModel,
    precision: Precision,
    heldOut: HeldOutBatches,
  ): Promise<HeldOutEvaluator> {
    const bound = trainingLoss(model, precision).bind({ B: heldOut.rows, T: heldOut.sequenceLength });
    return new HeldOutEvaluator(backend, await backend.compile(simplify(bound)), heldOut);
  }

  /** The loss with these parameters, as they are kept in training. All batches are of one size, so the mean of their means is the mean. */
  async loss(parameters: Readonly<Record<string, DeviceTensor>>): Promise<HeldOutLoss> {
    const batchLosses: number[] = [];
    for (const { ids, targets } of this.#heldOut.batches) {
      this.#backend.write(this.#ids, ids);
      this.#backend.write(this.#targets, targets);
      const { value } = this.#executable.run({ ...parameters, ids: this.#ids, targets: this.#targets });
      batchLosses.push(Number((await value.read())[0]));
    }
    const heldOutLoss = batchLosses.reduce((sum, loss) => sum + loss, 0) / batchLosses.length;
    const { bytesPerToken } = this.#heldOut;
    if (bytesPerToken === undefined || bytesPerToken === 0) return { heldOutLoss, batchLosses };
    return { heldOutLoss, bitsPerByte: heldOutLoss / Math.LN2 / bytesPerToken, batchLosses };
  }

  close(): void {
    this.#executable.close();
    this.#ids.dispose();
    this.#targets.dispose();
  }
}
