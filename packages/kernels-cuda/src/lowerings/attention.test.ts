// The kernels of attention against the float32 composition on the same GPU; reported as not run where there is none.

import {
  attention,
  cast,
  f32,
  fromBfloat16Bits,
  type Graph,
  mul,
  RandomStream,
  sisaAttention,
  sum,
  type Tensor,
  type TensorSpec,
  toBfloat16Bits,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { expect, test } from "vitest";
import { cuda } from "../backend.ts";
import { missingDevice } from "../testing.ts";

const missing = await missingDevice();
const [B, H] = [2, 3];

/** [D, S, T, mean decay]; S of 0 is plain attention. */
const cases = [
  [64, 0, 200, 0],
  [128, 0, 130, 0],
  [64, 16, 65, 0.05],
  [64, 32, 63, 1],
  [64, 32, 777, 0.0067],
  [64, 32, 777, 5],
  [64, 64, 300, 0.05],
  [64, 128, 300, 0.05],
  [128, 32, 300, 0.05],
  [128, 128, 300, 0.05],
] as const;

function graphOf(D: number, S: number, T: number, dtype: "float32" | "bfloat16"): Graph {
  const narrow = (...shape: number[]): TensorSpec => ({ dtype, shape: f32(...shape).shape });
  const content = { q: narrow(B, T, H, D), k: narrow(B, T, H, D), v: narrow(B, T, H, D) };
  const states = { c: narrow(B, T, H, S), b: narrow(B, T, H, S), logDecay: f32(B, T, H), phase: f32(B, T, H, S / 2) };
  const inputs = S > 0 ? { ...content, ...states, lambda: f32(H) } : content;
  const graph = trace({ ...inputs, weight: f32(B, T, H, D) } as Record<string, TensorSpec>, ({ weight, ...given }) => {
    const y = S > 0 ? sisaAttention(given as never) : attention(given as never);
    return { value: sum(mul(cast(y, "float32") as Tensor, weight as Tensor)), y };
  });
  return valueAndGrad(graph as never, { wrt: Object.keys(inputs) as never }) as unknown as Graph;
}

function valuesOf(name: string, { shape }: TensorSpec, decay: number): Float32Array {
  const stream = new RandomStream(7, name);
  const count = shape.reduce((total, size) => total * (size.value ?? 0), 1);
  return Float32Array.from({ length: count }, (_, index) => {
    const x = 2 * stream.uniform(index) - 1;
    if (name === "logDecay") return -decay * (1 + 0.8 * x);
    if (name === "lambda") return 0.3 + 0.3 * Math.abs(x);
    return name === "phase" || name === "weight" ? x : fromBfloat16Bits(toBfloat16Bits(1.7 * x));
  });
}

async function run(graph: Graph, decay: number): Promise<Record<string, number[]>> {
  await using backend = await cuda();
  const program = await backend.compile(graph);
  const inputs = Object.entries(graph.inputs).map(([name, spec]) => {
    const values = valuesOf(name, spec, decay);
    return [name, backend.tensor(spec, spec.dtype === "bfloat16" ? Uint16Array.from(values, toBfloat16Bits) : values)];
  });
  const outputs = Object.entries(program.run(Object.fromEntries(inputs)));
  const read = outputs.map(async ([name, tensor]): Promise<[string, number[]]> => {
    const data = [...(await tensor.read())];
    return [name, tensor.spec.dtype === "bfloat16" ? data.map(fromBfloat16Bits) : data];
  });
  return Object.fromEntries(await Promise.all(read));
}

/** By norm; the gradient of phase is a small difference of bfloat16 gradients, and its error is in bench/cuda/log.md. */
function bound(name: string): number {
  return name.includes("logDecay") || name.includes("lambda") ? 0.03 : 0.01;
}

for (const [D, S, T, decay] of cases) {
  test(`attention with D ${D}, S ${S}, T ${T}, decay ${decay} equals its composition`, async ({ skip }) => {
    if (missing !== undefined) return skip(`not run: no device (${missing})`);
    const found = await run(graphOf(D, S, T, "bfloat16"), decay);
    const wanted = await run(graphOf(D, S, T, "float32"), decay);
    expect(await run(graphOf(D, S, T, "bfloat16"), decay)).toEqual(found);
    for (const [name, values] of Object.entries(wanted)) {
      if (name === "value" || name === "grad.phase") continue;
      const error = Math.sqrt(squares(values.map((x, index) => x - (found[name]?.[index] ?? 0))));
      expect(error / Math.sqrt(squares(values)), name).toBeLessThan(bound(name));
    }
  });
}

function squares(values: readonly number[]): number {
  return values.reduce((total, x) => total + x * x, 0);
}
