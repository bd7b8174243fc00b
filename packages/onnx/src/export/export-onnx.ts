// A model as a folder of files for other runtimes.

import type { Graph, LanguageModel } from "@sisa/core";
import { cacheLowerings } from "./cache-ops.ts";
import { axisNames, fixedDecoder, growingDecoder } from "./decoder.ts";
import { graphToOnnx } from "./graph-to-onnx.ts";

/** A model with its weights, as `loadModel` of @sisa/hub gives it. */
export interface ModelToExport {
  readonly model: LanguageModel;
  readonly parameters: { readonly [name: string]: Float32Array };
  /** Files that go along unchanged: configuration and tokenizer. */
  readonly assets?: { readonly [path: string]: Uint8Array };
}

/**
 * The files of a model for other runtimes: two decoders with caches under `onnx/`, and the model's assets as they are.
 *
 * @returns bytes by path
 * @throws GraphError where the file would be larger than 2 GB
 */
export async function exportOnnx(source: ModelToExport): Promise<{ readonly [path: string]: Uint8Array }> {
  return {
    ...source.assets,
    "onnx/model.onnx": decoderBytes(growingDecoder(source.model), source, 23),
    "onnx/model_fixed.onnx": decoderBytes(fixedDecoder(source.model), source, 24),
  };
}

function decoderBytes(graph: Graph, { parameters }: ModelToExport, opset: number): Uint8Array {
  const int64Inputs = Object.entries(graph.inputs).flatMap(([name, { dtype }]) => (dtype === "int32" ? [name] : []));
  return graphToOnnx(graph, { constants: parameters, int64Inputs, axes: axisNames, opset, lowerings: cacheLowerings });
}
