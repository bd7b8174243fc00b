// The kernels of attention against the float32 composition on the same GPU, those of its generation and those for every
// GPU; reported as not run where there is none.

import {
  add,
  attention,
  cast,
  f32,
  fromBfloat16Bits,
  type Graph,
  mul,
  neg,
  RandomStream,
  sisaAttention,
  softplus,
  sum,
  type Tensor,
  type TensorSpec,
  toBfloat16Bits,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { expect, test } from "vitest";
import { type CudaOptions, cuda, cudaDevices, lower } from "../backend.ts";
import { missingDevice } from "../testing.ts";
import { hopperCapability } from "./attention-hopper.ts";

const missing = await missingDevice();
const onHopper = missing === undefined && (await cudaDevices())[0]?.capability === hopperCapability;
const [B, H] = [2, 3];

/** Mean decays of which some tokens have none and some forget nearly everything. */
const uneven = "uneven";

/** [D, S, T, mean decay]; S of 0 is plain attention. */
const cases: readonly (readonly [D: number, S: number, T: number, decay: number | typeof uneven])[] = [
  [64, 0, 1, 0],
  [64, 0, 200, 0],
  [64, 0, 1025, 0],
  [128, 0, 130, 0],
  [128, 0, 600, 0],
  [64, 16, 65, 0.05],
  [64, 16, 500, 1],
  [64, 32, 63, 1],
  [64, 32, 193, 0.3],
  [64, 32, 777, 0.0067],
  [64, 32, 777, 5],
  [64, 32, 777, uneven],
  [64, 32, 2049, 0.05],
  [64, 64, 300, 0.05],
  [64, 64, 257, 1],
  [64, 128, 300, 0.05],
  [64, 128, 257, uneven],
  [128, 16, 300, 0.05],
  [128, 32, 300, 0.05],
  [128, 32, 257, uneven],
  [128, 64, 300, 1],
  [128, 128, 300, 0.05],
  [128, 128, 257, 5],
];

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

/**
 * Gradients by what decays are made of. A gradient of the projection that is not rounded, as where it is float32, has operations
 * of its own; with all else in float32 too, so has attention.
 */
function decaysGraph(
  T: number,
  S: number,
  dtype: "float32" | "bfloat16",
  others: "float32" | "bfloat16" = "bfloat16",
): Graph {
  const narrow = (...shape: number[]): TensorSpec => ({ dtype: others, shape: f32(...shape).shape });
  const content = { q: narrow(B, T, H, 64), k: narrow(B, T, H, 64), v: narrow(B, T, H, 64) };
  const states = { c: narrow(B, T, H, S), b: narrow(B, T, H, S), turn: narrow(B, T, H, S / 2) };
  const decays = { strength: { dtype, shape: f32(B, T, H).shape }, strengthBias: f32(H), raw: f32(H) };
  const inputs: Record<string, TensorSpec> = { ...content, ...states, ...decays };
  const graph = trace({ ...inputs, weight: f32(B, T, H, 64) }, (tensors) => {
    const { weight, turn, strength, strengthBias, raw, ...others } = tensors as Record<string, Tensor>;
    const [phase, x] = [turn, strength].map((given) => cast(given as Tensor, "float32") as Tensor) as [Tensor, Tensor];
    const logDecay = neg(softplus(add(x, strengthBias as Tensor)));
    const y = sisaAttention({ ...others, logDecay, phase, lambda: softplus(raw as Tensor) } as never);
    return { value: sum(mul(cast(y, "float32") as Tensor, weight as Tensor)) };
  });
  return valueAndGrad(graph as never, { wrt: Object.keys(inputs) as never }) as unknown as Graph;
}

function valuesOf(name: string, { shape }: TensorSpec, decay: number | typeof uneven): Float32Array {
  const stream = new RandomStream(7, name);
  const count = shape.reduce((total, size) => total * (size.value ?? 0), 1);
  return Float32Array.from({ length: count }, (_, index) => {
    const x = 2 * stream.uniform(index) - 1;
    if (name === "logDecay" && decay === uneven) return x < -0.5 ? -100 * (1 + x) : x < 0.8 ? 0 : -0.01;
    if (name === "logDecay") return -(decay as number) * (1 + 0.8 * x);
    if (name === "strengthBias") return Math.log(Math.expm1(decay as number));
    if (name === "raw") return x;
    if (name === "lambda") return 0.3 + 0.3 * Math.abs(x);
    return name === "phase" || name === "weight" ? x : fromBfloat16Bits(toBfloat16Bits(1.7 * x));
  });
}

type Results = Record<string, number[]>;

/** Results of several runs. */
async function run(
  graph: Graph,
  decay: number | typeof uneven,
  runs: number,
  options: CudaOptions,
): Promise<Results[]> {
  await using backend = await cuda(options);
  const program = await backend.compile(graph);
  const inputs = Object.entries(graph.inputs).map(([name, spec]) => {
    const values = valuesOf(name, spec, decay);
    return [name, backend.tensor(spec, spec.dtype === "bfloat16" ? Uint16Array.from(values, toBfloat16Bits) : values)];
  });
  const results: Results[] = [];
  for (let count = 0; count < runs; count++) {
    const outputs = Object.entries(program.run(Object.fromEntries(inputs)));
    const read = outputs.map(async ([name, tensor]): Promise<[string, number[]]> => {
      const data = [...(await tensor.read())];
      return [name, tensor.spec.dtype === "bfloat16" ? data.map(fromBfloat16Bits) : data];
    });
    results.push(Object.fromEntries(await Promise.all(read)));
  }
  return results;
}

/** By norm. The gradient of phase is a small difference of those of c and b, and Hopper's kernels round other operands. */
function bound(name: string, portable: boolean): number {
  if (name === "grad.phase" || name === "grad.turn") return portable ? 0.02 : 0.05;
  return ["logDecay", "lambda", "strength", "raw"].some((part) => name.includes(part)) ? 0.03 : 0.01;
}

/** Kernels, and whether each of their runs gives the same bits. */
const variants: readonly (readonly [kernels: string, options: CudaOptions, equal: boolean])[] = [
  ["kernels of the device", {}, false],
  ["deterministic kernels of the device", { deterministic: true }, true],
  ["portable kernels", { portable: true }, true],
];

for (const [D, S, T, decay] of cases) {
  for (const [kernels, options, equal] of variants) {
    test(`attention by ${kernels} with D ${D}, S ${S}, T ${T}, decay ${decay} equals its composition`, async ({
      skip,
    }) => {
      if (missing !== undefined) return skip(`not run: no device (${missing})`);
      const [found = {}, ...again] = await run(graphOf(D, S, T, "bfloat16"), decay, equal ? 3 : 1, options);
      const [wanted = {}] = await run(graphOf(D, S, T, "float32"), decay, 1, {});
      for (const other of again) expect(other).toEqual(found);
      for (const [name, values] of Object.entries(wanted)) {
        if (name === "value") continue;
        const error = norm(values.map((x, index) => x - (found[name]?.[index] ?? 0)));
        // A position that sees itself alone gives scores no gradient: that is measured by the gradient of its value.
        const scale = norm(T === 1 ? (wanted["grad.v"] ?? []) : values);
        expect(error / scale, name).toBeLessThan(bound(name, options.portable === true || !onHopper));
      }
    });
  }
}

const joined = "cuda/decayAttentionBackwardStates";

test.each(["float32", "bfloat16"] as const)("decays in %s from their projection", (dtype) => {
  const names = lower(decaysGraph(200, 32, dtype)).nodes.map(({ op }) => op.name);
  expect(names.includes(joined)).toBe(dtype === "bfloat16");
  expect(names.includes("sigmoid")).toBe(dtype === "float32");
});

for (const [T, S] of [
  [193, 32],
  [2049, 32],
  [193, 16],
  [193, 64],
] as const) {
  for (const [kernels, options, equal] of variants) {
    test(`gradients of states by ${kernels}, T ${T}, S ${S}, are the same from one kernel and from several`, async ({
      skip,
    }) => {
      if (missing !== undefined) return skip(`not run: no device (${missing})`);
      const [found = {}, again] = await run(decaysGraph(T, S, "bfloat16"), 0.05, 2, options);
      const [wanted = {}] = await run(decaysGraph(T, S, "float32"), 0.05, 1, options);
      const [exact = {}] = await run(decaysGraph(T, S, "float32", "float32"), 0.05, 1, {});
      if (equal) expect(again).toEqual(found);
      for (const [name, values] of Object.entries(wanted)) {
        const error = norm(values.map((x, index) => x - (found[name]?.[index] ?? Number.NaN)));
        // Rounded once to bfloat16, or sums of float32; sums that come in any order are rounded anew to bfloat16.
        const isRounded = name === "grad.strength" || !equal;
        expect(error / norm(values), name).toBeLessThan(isRounded ? 4e-3 : 1e-4);
        // Sums over all positions, of either sign, are nearly nothing. Lambda is up to twice that of the cases above.
        if (name === "value" || name === "grad.strengthBias") continue;
        const apart = norm((exact[name] ?? []).map((x, index) => x - (found[name]?.[index] ?? Number.NaN)));
        const isPortable = options.portable === true || !onHopper;
        expect(apart / norm(exact[name] ?? []), `${name}, from its composition`).toBeLessThan(
          2 * bound(name, isPortable),
        );
      }
    });
  }
}

function norm(values: readonly number[]): number {
  return Math.sqrt(values.reduce((total, x) => total + x * x, 0));
}
