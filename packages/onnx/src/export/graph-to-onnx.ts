// Any graph as an ONNX file that needs none of our packages.

import { type Graph, GraphError, type GraphInputs, type GraphOutputs, type TypedArray } from "@sisa/core";
import { type Lowerings, lower } from "../lower.ts";
import type { Dialect } from "../lowering.ts";
import { modelBytes } from "../model-proto.ts";

/** Operator set of exported files: the first with Attention, RMSNormalization and RotaryEmbedding. TensorScatter is of the next. */
const defaultOpset = 23;

/** A protobuf may not be larger than 2 GB; what goes beyond it would have to lie in files of its own. */
const mostBytes = 2 ** 31 - 2 ** 20;

/** Which inputs become constants, and rules for other people's operations. */
export interface GraphToOnnxOptions<I extends GraphInputs = GraphInputs> {
  /** Values of inputs, which become part of the file. Default none. */
  readonly constants?: { readonly [N in keyof I]?: TypedArray };
  /** int32 inputs that the file takes as int64, as other tools pass token ids. Default none. */
  readonly int64Inputs?: readonly (keyof I & string)[];
  /** What inputs and outputs are called in the file. Default: as in the graph. */
  readonly names?: { readonly [name: string]: string };
  /** `standard` (default) uses operators of ONNX only; `onnxruntime` those of ONNX Runtime where they are faster. */
  readonly dialect?: Dialect;
  /** What dynamic axes are called in the file, by the text of their size. Default: that text. */
  readonly axes?: { readonly [size: string]: string };
  /** Version of ONNX's operator set; default 23. */
  readonly opset?: number;
  /** How to spell operations of third parties, by name; composites need none. Default none. */
  readonly lowerings?: Lowerings;
}

/**
 * A graph as an ONNX file. Symbolic dims become dynamic axes.
 *
 * @returns the bytes of the file
 * @throws UnsupportedOpError for an operation with neither lowering nor composition, and for floats other than float32;
 *   GraphError where the file would be larger than 2 GB, for constants of unbound size, and for sizes that no input
 *   tells
 */
export function graphToOnnx<I extends GraphInputs, O extends GraphOutputs>(
  graph: Graph<I, O>,
  options: GraphToOnnxOptions<I> = {},
): Uint8Array {
  const { names = {}, axes = {}, dialect = "standard", opset = defaultOpset } = options;
  const rename = (name: string) => names[name] ?? name;
  const { builder } = lower(graph, {
    dialect,
    constants: options.constants ?? {},
    int64Inputs: new Set(options.int64Inputs ?? []),
    lowerings: options.lowerings,
    nameOfInput: rename,
    nameOfOutput: rename,
    nameOfAxis: (size) => axes[size] ?? size,
  });
  if (builder.constantBytes > mostBytes) {
    throw new GraphError(`graphToOnnx: ${builder.constantBytes} bytes of constants do not fit in one file of 2 GB`);
  }
  return modelBytes(builder, { name: "sisa", opset });
}
