// Models and graphs as ONNX files that need none of our packages.

import {
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  type LanguageModel,
  simplify,
  type TypedArray,
} from "@sisa/core";
import { type Lowerings, lower } from "./lower.ts";
import type { Dialect } from "./lowering.ts";
import { modelBytes } from "./model-proto.ts";

/** Operator set of exported files: the first with Attention, RMSNormalization and RotaryEmbedding. */
const opset = 23;

/** A protobuf may not be larger than 2 GB; what goes beyond it would have to lie in files of its own. */
const mostBytes = 2 ** 31 - 2 ** 20;

export interface GraphToOnnxOptions<I extends GraphInputs = GraphInputs> {
  /** Values of inputs, which become part of the file. */
  readonly constants?: { readonly [N in keyof I]?: TypedArray };
  /** int32 inputs that the file takes as int64. */
  readonly int64Inputs?: readonly (keyof I & string)[];
  /** What inputs and outputs are called in the file, where not as in the graph. */
  readonly names?: { readonly [name: string]: string };
  /** `standard` (default) uses operators of ONNX only; `onnxruntime` those of ONNX Runtime where they are faster. */
  readonly dialect?: Dialect;
  /** Lowerings of operations of third parties. */
  readonly lowerings?: Lowerings;
}

/**
 * A graph as an ONNX file. Symbolic dims become dynamic axes.
 *
 * @throws UnsupportedOpError for an operation with neither lowering nor composition, and for floats other than float32;
 *   GraphError where the file would be larger than 2 GB
 */
export function graphToOnnx<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  options: GraphToOnnxOptions<I> = {},
): Uint8Array {
  const { names = {}, dialect = "standard" } = options;
  const rename = (name: string) => names[name] ?? name;
  const { builder } = lower(graph, {
    dialect,
    constants: options.constants ?? {},
    int64Inputs: new Set(options.int64Inputs ?? []),
    lowerings: options.lowerings,
    nameOfInput: rename,
    nameOfOutput: rename,
  });
  if (builder.constantBytes > mostBytes) {
    throw new GraphError(`graphToOnnx: ${builder.constantBytes} bytes of constants do not fit in one file of 2 GB`);
  }
  return modelBytes(builder, { name: "sisa", opset }).model;
}

/** A model with its weights, as `loadModel` of @sisa/hub gives it. */
export interface ModelToExport {
  readonly model: LanguageModel;
  readonly parameters: { readonly [name: string]: Float32Array };
  /** Files that go along unchanged: configuration and tokenizer. */
  readonly assets?: { readonly [path: string]: Uint8Array };
}

/**
 * The files of a model for other runtimes: `onnx/model.onnx` with input `input_ids` int64 [batch, sequence] and output
 * `logits` float32 [batch, sequence, vocabulary], and the model's assets as they are.
 *
 * @returns bytes by path
 * @throws GraphError where the file would be larger than 2 GB
 */
export async function exportOnnx(source: ModelToExport): Promise<{ readonly [path: string]: Uint8Array }> {
  const graph = simplify(source.model.logitsGraph());
  const model = graphToOnnx(graph, {
    constants: source.parameters,
    int64Inputs: ["ids"],
    names: { ids: "input_ids" },
  });
  return { ...source.assets, "onnx/model.onnx": model };
}
