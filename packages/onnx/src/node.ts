// What @sisa/onnx offers on Node: exports that are written to disk. Everything else is in ./index.ts.

export { exportOnnx, type NodeExportOptions } from "./export/node.ts";
