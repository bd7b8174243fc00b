// A model as a folder of files for other runtimes.

import { ConfigError, type Graph, type LanguageModel, type SisaForm } from "@sisa/core";
import { lower } from "../lower.ts";
import { modelBytes, type PlaceConstant } from "../model-proto.ts";
import { axisNames, fixedDecoder, growingDecoder, keepsRows } from "./decoder.ts";
import { decoderLowerings } from "./decoder-ops.ts";
import { measureDecoder } from "./measure.ts";
import { cardBytes, type ReportedVariant, reportBytes } from "./model-card.ts";
import { StoredWeights, suffixes, type WeightType, weightLowerings, weightTypes } from "./weights.ts";

/** A model with its weights, as `loadModel` of @sisa/hub gives it. */
export interface ModelToExport {
  /** What the decoders compute. */
  readonly model: LanguageModel;
  /** By the model's names, row major. */
  readonly parameters: { readonly [name: string]: Float32Array };
  /** Files that go along unchanged: configuration and tokenizer. */
  readonly assets?: { readonly [path: string]: Uint8Array };
}

/** Which weights are written, and what they are measured on. */
export interface ExportOptions {
  /** Element types of the weights; each gives two files of its own. Default float32. */
  readonly dtypes?: readonly WeightType[];
  /**
   * Form of SISA, whatever form the model was trained in. `exact` (default) holds at any length; `sdpa` is the paper's, one
   * stock Attention call per layer, and clamps decay as it does.
   */
  readonly form?: SisaForm;
  /**
   * Where the weights of a file take more bytes than this, they lie in a file beside it, which both decoders of a dtype
   * share. Default 2^30, 1 GiB; a protobuf holds at most 2.
   */
  readonly largestFileBytes?: number;
  /**
   * Tokens of a text that was not trained on. With them, what each dtype changes is measured with ONNX Runtime, and stands in
   * README.md and onnx/report.json. Default: nothing is measured.
   */
  readonly heldOut?: ArrayLike<number>;
  /** Gets each file as soon as it is made, so that no two dtypes are in memory together. Default: files are returned. */
  readonly to?: ExportTarget | undefined;
}

/** Where exported files go, such as a storage of @sisa/hub. */
export interface ExportTarget {
  /** @param path with slashes, below the folder of the export */
  write(path: string, bytes: Uint8Array): Promise<void>;
}

/** Content by path, "/" between folders. */
export type ExportedFiles = { readonly [path: string]: Uint8Array };

const folder = "onnx/";

/** Constants below this many bytes always lie in the file itself. */
const smallestOutside = 1024;

/** A protobuf may not be larger than 2 GB. */
const mostBytes = 2 ** 31 - 2 ** 20;

/** What lies outside begins at multiples of this, so that runtimes can map it into memory. */
const alignment = 4096;

/**
 * The files of a model for other runtimes: for each dtype two decoders with caches under `onnx/`, and the model's assets
 * as they are. docs/onnx.md says what goes in and out.
 *
 * @returns bytes by path, where there is no `to`
 * @throws ConfigError for a dtype or form that is none; GraphError for a model with layers that have no export;
 *   DataError for weights that a dtype cannot hold, and for a held-out text of less than two tokens;
 *   BackendUnavailableError where `heldOut` is given and ONNX Runtime is not installed; what `to` throws
 */
export async function exportOnnx(
  source: ModelToExport,
  options: ExportOptions & { readonly to: ExportTarget },
): Promise<undefined>;
export async function exportOnnx(
  source: ModelToExport,
  options?: ExportOptions & { readonly to?: undefined },
): Promise<ExportedFiles>;
export async function exportOnnx(
  source: ModelToExport,
  options: ExportOptions = {},
): Promise<ExportedFiles | undefined> {
  const files: Record<string, Uint8Array> = {};
  for await (const [path, bytes] of exportedFiles(source, options)) {
    if (options.to) await options.to.write(path, bytes);
    else files[path] = bytes;
  }
  if (!options.to) return files;
}

async function* exportedFiles(
  source: ModelToExport,
  options: ExportOptions,
): AsyncGenerator<readonly [path: string, bytes: Uint8Array]> {
  const { dtypes = ["float32"], form = "exact", largestFileBytes = 2 ** 30, heldOut } = options;
  for (const dtype of dtypes) {
    if (!weightTypes.includes(dtype)) {
      throw new ConfigError(`export: expected dtypes of ${weightTypes.join(", ")}, got "${dtype}"`);
    }
  }
  if (form !== "exact" && form !== "sdpa") {
    throw new ConfigError(`export: expected form "exact" or "sdpa", got "${form}"`);
  }
  const growing = growingDecoder(source.model, form);
  // A model of states only has nothing that grows.
  const fixed = keepsRows(source.model) ? fixedDecoder(source.model, form) : undefined;
  yield* Object.entries(source.assets ?? {});
  const variants: ReportedVariant[] = [];
  for (const dtype of new Set(dtypes)) {
    const suffix = suffixes[dtype];
    const outside = new OutsideData(`model${suffix}.onnx_data`, largestFileBytes);
    const weights = new StoredWeights(source.parameters, dtype);
    const model = decoderBytes(growing, source, weights, outside);
    const written: Record<string, Uint8Array> = {
      [`model${suffix}.onnx`]: model,
      ...(fixed && { [`model_fixed${suffix}.onnx`]: decoderBytes(fixed, source, weights, outside) }),
    };
    if (outside.length > 0) written[outside.location] = outside.bytes();
    for (const [name, bytes] of Object.entries(written)) yield [folder + name, bytes];
    const beside = Object.fromEntries(Object.entries(written).filter(([name]) => name === outside.location));
    variants.push({
      dtype,
      files: Object.fromEntries(Object.entries(written).map(([name, { length }]) => [name, length])),
      ...(heldOut && { difference: await measureDecoder(source, model, beside, heldOut) }),
    });
  }
  yield [`${folder}report.json`, reportBytes(variants)];
  yield ["README.md", cardBytes(variants)];
}

/** Operator sets: the first with Attention, RMSNormalization and RotaryEmbedding, and the first with TensorScatter. */
const opsets = { growing: 23, fixed: 24 };

function decoderBytes(
  graph: Graph,
  { parameters }: ModelToExport,
  weights: StoredWeights,
  outside: OutsideData,
): Uint8Array {
  const stored = weights.rewrite(graph);
  const int64Inputs = Object.entries(stored.inputs).flatMap(([name, spec]) => (spec.dtype === "int32" ? [name] : []));
  const { builder, inPlace } = lower(stored, {
    dialect: "standard",
    constants: parameters,
    int64Inputs: new Set(int64Inputs),
    nameOfAxis: (size) => axisNames[size] ?? size,
    lowerings: { ...decoderLowerings, ...weightLowerings },
  });
  const isFixed = inPlace.size > 0;
  // What onnxruntime-node stops at before it copies caches that were written in place.
  if (isFixed) builder.sequenceOutput(builder.node("SequenceEmpty", [], {}, { output: "done" }), "float32");
  const opset = isFixed ? opsets.fixed : opsets.growing;
  const place = outside.placeFor(builder.constantBytes);
  return modelBytes(builder, { name: "sisa", opset, place });
}

/** Weights in a file of their own. */
class OutsideData {
  readonly location: string;
  readonly #largestFileBytes: number;
  readonly #parts: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  length = 0;

  constructor(location: string, largestFileBytes: number) {
    this.location = location;
    this.#largestFileBytes = Math.min(largestFileBytes, mostBytes);
  }

  /** Where constants of a model go; inside, where all of them fit there. What is the same memory is stored once. */
  placeFor(constantBytes: number): PlaceConstant | undefined {
    if (constantBytes <= this.#largestFileBytes) return undefined;
    return (_name, bytes) => {
      if (bytes.length < smallestOutside) return undefined;
      const { buffer, byteOffset, length } = bytes;
      const known = this.#parts.find(
        (part) => part.bytes.buffer === buffer && part.bytes.byteOffset === byteOffset && part.bytes.length === length,
      );
      if (known) return { location: this.location, offset: known.offset };
      const offset = Math.ceil(this.length / alignment) * alignment;
      this.#parts.push({ offset, bytes });
      this.length = offset + length;
      return { location: this.location, offset };
    };
  }

  bytes(): Uint8Array {
    const whole = new Uint8Array(this.length);
    for (const { offset, bytes } of this.#parts) whole.set(bytes, offset);
    return whole;
  }
}
