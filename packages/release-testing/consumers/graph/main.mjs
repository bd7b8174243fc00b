// A graph and its gradient on ONNX Runtime, and the graph as a file that ONNX Runtime reads without any of our packages.
import { f32, matmul, mean, silu, trace, valueAndGrad } from "@sisa/core";
import * as onnx from "@sisa/onnx";
import { onnxruntime as openBackend } from "@sisa/onnx";
import * as ort from "onnxruntime-node";

const loss = trace({ x: f32("T", 8), w: f32(8, 4) }, ({ x, w }) => mean(silu(matmul(x, w))));
const x = new Float32Array(24).fill(0.5);
const w = new Float32Array(32).fill(0.1);

const backend = await openBackend();
const program = await backend.compile(valueAndGrad(loss, { wrt: ["w"] }));
const outputs = program.run({ x: backend.tensor(f32(3, 8), x), w: backend.tensor(f32(8, 4), w) });
const value = (await outputs.value.read())[0];
const gradient = (await outputs["grad.w"].read())[0];
await backend.close();

const session = await ort.InferenceSession.create(onnx.graphToOnnx(loss, { constants: { w } }));
const exported = await session.run({ x: new ort.Tensor("float32", x, [3, 8]) });
console.log(JSON.stringify({ backend: backend.name, value, gradient, exported: exported.value.data[0] }));
