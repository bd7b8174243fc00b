// Everything @sisa/onnx offers: graphs as ONNX models, and the backend that runs them on ONNX Runtime.

export { type OnnxruntimeOptions, onnxruntime } from "./backend.ts";
export {
  type ExportedFiles,
  type ExportOptions,
  type ExportTarget,
  exportOnnx,
  type ModelToExport,
} from "./export/export-onnx.ts";
export { type GraphToOnnxOptions, graphToOnnx } from "./export/graph-to-onnx.ts";
export type { Difference } from "./export/measure.ts";
export type { WeightType } from "./export/weights.ts";
export type { Lowerings } from "./lower.ts";
export {
  type Dialect,
  type Emitter,
  type LoweredOutputs,
  type Lowering,
  type LoweringArguments,
  lowering,
  type MatmulOperand,
  type MatmulOptions,
  type Slot,
} from "./lowering.ts";
export type { Attribute, ElementType, GraphBuilder, NodeOptions, Value } from "./model-proto.ts";
export type { Sizes } from "./sizes.ts";
