// Every entry, as a compiler sees it; and that what is wrong is an error.
import { type Backend, f32, matmul, preset, trace, valueAndGrad } from "@sisa/core";
import { byteTokenizer, type Tokenizer } from "@sisa/hub";
import { loadModel } from "@sisa/hub/node";
import { cuda } from "@sisa/kernels-cuda";
import { webgpu } from "@sisa/kernels-webgpu";
import { exportOnnx, onnxruntime } from "@sisa/onnx";
import { Engine } from "@sisa/serve";
import { serve } from "@sisa/serve/node";
import { type TrainingRun, train } from "@sisa/train";
import { textFiles } from "@sisa/train/node";

const backends: readonly (() => Promise<Backend>)[] = [onnxruntime, webgpu, cuda];
const tokenizer: Tokenizer = byteTokenizer();
const widths: number = preset("sisa", "50m", { vocabularySize: tokenizer.size }).width;
// @ts-expect-error no such size
preset("sisa", "51m");
const graph = trace({ x: f32("T", 8), w: f32(8, 4) }, ({ x, w }) => matmul(x, w));
// @ts-expect-error no such input
valueAndGrad(graph, { wrt: ["y"] });
const run = (options: Parameters<typeof train>[0]): Promise<TrainingRun> => train(options);
const data = textFiles([], tokenizer);
// @ts-expect-error steps are a number
run({ model: {} as never, backend: {} as never, data, steps: "10" });

export { backends, Engine, exportOnnx, loadModel, run, serve, widths };
