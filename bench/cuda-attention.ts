// The attention kernels on one GPU beside cuDNN's, forward and backward, on the same card in the same run: 20 runs in a row
// by events, medians of five. Needs an NVIDIA GPU, and a python3 with PyTorch on PATH.
//   node bench/run.mjs cuda-attention
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import {
  attention,
  attentionBackwardOp,
  type DeviceTensor,
  decayAttention,
  decayAttentionBackwardOp,
  f32,
  type Graph,
  RandomStream,
  type Tensor,
  type TensorSpec,
  type TypedArray,
  toBfloat16Bits,
  trace,
} from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import { apply } from "../packages/core/src/graph/op.ts";
import type { CudaExecutable } from "../packages/kernels-cuda/src/executable.ts";
import { median } from "./support/statistics.ts";

const run = promisify(execFile);
/** From where bench/run.mjs puts the compiled program. */
const script = new URL("../../../cuda/torch_attention.py", import.meta.url).pathname;
const [H, D] = [12, 64];
/** As of a new model: half is forgotten after 103 positions. */
const logDecay = -0.0067;
const block = 64;

interface Times {
  readonly forward: number;
  readonly backward: number;
}

/** Random numbers, repeated every million. */
const noise = new RandomStream(1, "noise").normal(2 ** 20);
const narrowNoise = Uint16Array.from(noise, toBfloat16Bits);

function valuesOf(name: string, { dtype, shape }: TensorSpec): TypedArray {
  const count = shape.reduce((total, { value }) => total * (value ?? 0), 1);
  if (name === "lambda") return new Float32Array(count).fill(0.5);
  if (name === "logSumExp") return new Float32Array(count).fill(8);
  // Sums within blocks of 64 positions, [B,T,H].
  if (name === "g") return Float32Array.from({ length: count }, (_, i) => logDecay * ((Math.floor(i / H) % block) + 1));
  const [data, source] =
    dtype === "bfloat16" ? [new Uint16Array(count), narrowNoise] : [new Float32Array(count), noise];
  // No two tensors begin alike.
  let at = -name.charCodeAt(0) * 4096;
  for (; at < count; at += source.length) data.set(source.subarray(Math.max(0, -at), count - at), Math.max(0, at));
  return data;
}

async function ours(B: number, T: number, S: number): Promise<Times> {
  const narrow = (width: number): TensorSpec => ({ ...f32(B, T, H, width), dtype: "bfloat16" });
  const content = { q: narrow(D), k: narrow(D), v: narrow(D) };
  const inputs: { readonly [name: string]: TensorSpec } =
    S > 0 ? { ...content, cRotated: narrow(S), bRotated: narrow(S), g: f32(B, T, H), lambda: f32(H) } : content;
  const scale = D ** -0.5;
  const operands = ({ g, ...given }: { readonly [name: string]: Tensor }) =>
    g === undefined ? given : { ...given, gQuery: g, gKey: g };
  const forward = trace(inputs, (given) => ({
    y:
      S > 0
        ? decayAttention(operands(given as never) as never, { scale })
        : attention(operands(given as never) as never),
  }));
  const results = { value: narrow(D), logSumExp: f32(B, H, T), gradient: narrow(D) };
  const backward = trace({ ...inputs, ...results }, (given) =>
    S > 0
      ? apply(decayAttentionBackwardOp, operands(given as never) as never, { scale })
      : apply(attentionBackwardOp, operands(given as never) as never, { scale, causal: true }),
  );
  await using backend = await cuda();
  const tensors = Object.entries({ ...inputs, ...results }).map(([name, spec]) => {
    return [name, backend.tensor(spec, valuesOf(name, spec))];
  });
  const given: { readonly [name: string]: DeviceTensor } = Object.fromEntries(tensors);
  const time = async (graph: Graph) => {
    const program = (await backend.compile(graph)) as unknown as CudaExecutable<never, never>;
    const own = Object.fromEntries(Object.keys(graph.inputs).map((name) => [name, given[name] as DeviceTensor]));
    program.run(own as never);
    const milliseconds: number[] = [];
    for (let count = 0; count < 5; count++) milliseconds.push((await program.profile()).milliseconds);
    return median(milliseconds);
  };
  return { forward: await time(forward as unknown as Graph), backward: await time(backward as unknown as Graph) };
}

async function cudnn(B: number, T: number, S: number): Promise<Times> {
  const given = { batches: B, length: T, heads: H, keyWidth: D + S, width: D, runs: 20 };
  const { stdout } = await run("python3", [script, JSON.stringify(given)]);
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
}

process.stdout.write(
  `H ${H}, D ${D}, S 32: TFLOP/s; ours with all that prepares and follows, cuDNN at widths of 96 and 64\n\n`,
);
process.stdout.write("| T | | forward | backward |\n|---|---|---|---|\n");
for (const [B, T] of [
  [16, 2048],
  [4, 8192],
  [2, 16384],
] as const) {
  const measured = [
    ["SISA, ours", 32, await ours(B, T, 32)],
    ["SISA, cuDNN", 32, await cudnn(B, T, 32)],
    ["attention, ours", 0, await ours(B, T, 0)],
    ["attention, cuDNN", 0, await cudnn(B, T, 0)],
    ["SISA, ours, again", 32, await ours(B, T, 32)],
  ] as const;
  for (const [name, S, { forward, backward }] of measured) {
    const rate = (widths: number, milliseconds: number) => ((B * H * T * T * widths) / milliseconds / 1e9).toFixed(0);
    const cells = [
      `${rate(2 * D + S, forward)} (${forward.toFixed(3)} ms)`,
      `${rate(5 * D + 3 * S, backward)} (${backward.toFixed(3)} ms)`,
    ];
    process.stdout.write(`| ${T} | ${name} | ${cells.join(" | ")} |\n`);
  }
}
