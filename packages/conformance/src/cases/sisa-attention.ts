import {
  DTypeError,
  f32,
  i32,
  ShapeError,
  type SisaForm,
  sdpaClamp,
  sisaAttention,
  sub,
  type Tensor,
} from "@sisa/core";
import { type Case, casesOf, floats, normals, refusal, testCase, type Values } from "../case.ts";
import { fine, smallGradient } from "./decay-attention.ts";
import { at, attend, dot, sigmoidsOf, softmaxOf } from "./formulas.ts";
import { states } from "./ssm-prepare.ts";

type Size = number | string;
type Sizes = { readonly B?: Size; readonly T?: Size; readonly H?: Size; readonly S?: number; readonly D?: number };

function tensors(sizes: Sizes, rates: { readonly decay?: number; readonly speed?: number } = {}) {
  const { B = 2, T = 5, H = 3, S = 4, D = 4 } = sizes;
  return {
    q: normals([B, T, H, D]),
    k: normals([B, T, H, D]),
    v: normals([B, T, H, D + 2]),
    ...states({ B, T, H, S }, rates),
    lambda: floats([H], { low: 0.2, high: 1.5 }),
  };
}

/** Both forms by their formulas, with sums over the whole sequence in float64. */
function formula(values: Values, scale = 0.5, form: SisaForm = "exact", weigh = softmaxOf) {
  const { q, k, v, c, b, logDecay, phase, lambda } = values;
  const [batches = 0, length = 0, heads = 0, width = 0] = q?.shape ?? [];
  const half = phase?.shape[3] ?? 0;
  const sums = (x: Values[string] | undefined, ...rest: number[]) => {
    let total = 0;
    return Array.from({ length }, (_, t) => {
      total += at(x, rest[0] ?? 0, t, ...rest.slice(1));
      return total;
    });
  };
  const grid = <T>(make: (batch: number, head: number) => T) =>
    Array.from({ length: batches }, (_, batch) => Array.from({ length: heads }, (_, head) => make(batch, head)));
  const g = grid((batch, head) => sums(logDecay, batch, head));
  const phi = grid((batch, head) => Array.from({ length: half }, (_, n) => sums(phase, batch, head, n)));
  const value = attend(
    [batches, length, heads],
    v,
    (batch, head, i, j) => {
      if (j > i) return Number.NEGATIVE_INFINITY;
      const content = dot(
        width,
        (d) => at(q, batch, i, head, d),
        (d) => at(k, batch, j, head, d),
      );
      // (R(a) c) . (R(b) b) depends on the angle between only.
      const signal = dot(
        half,
        () => 1,
        (n) => {
          const angles = phi[batch]?.[head]?.[n] ?? [];
          const between = (angles[i] ?? 0) - (angles[j] ?? 0);
          const [c0, c1] = [at(c, batch, i, head, 2 * n), at(c, batch, i, head, 2 * n + 1)];
          const [b0, b1] = [at(b, batch, j, head, 2 * n), at(b, batch, j, head, 2 * n + 1)];
          return (c0 * b0 + c1 * b1) * Math.cos(between) + (c0 * b1 - c1 * b0) * Math.sin(between);
        },
      );
      const decays = g[batch]?.[head] ?? [];
      // Form `sdpa` clamps each side by itself, around the middle of the whole sequence.
      const middle = ((decays[0] ?? 0) + (decays[length - 1] ?? 0)) / 2;
      const side = (t: number) =>
        form === "exact" ? (decays[t] ?? 0) : Math.min(Math.max((decays[t] ?? 0) - middle, -sdpaClamp), sdpaClamp);
      return scale * content + at(lambda, head) * Math.exp(side(i) - side(j)) * signal;
    },
    weigh,
  );
  return { value };
}

const run = (form: SisaForm) => (inputs: { readonly [N in keyof ReturnType<typeof tensors>]: Tensor }) =>
  sisaAttention(inputs, { form });

function whole(
  name: string,
  sizes: Sizes,
  more: Partial<Case> & { decay?: number; speed?: number; form?: SisaForm } = {},
): Case {
  const { decay, speed, form = "exact", ...options } = more;
  const rates = { ...(decay !== undefined && { decay }), ...(speed !== undefined && { speed }) };
  return { ...testCase({ name, inputs: tensors(sizes, rates), program: run(form) }), ...options };
}

const few = { differences: { elements: 1 } };

const oneToken = { absolute: 5e-6, reason: "zero but for rounding where there is one token" };

/** Decays per token, from almost none to complete. */
const decays = [0.001, 0.05, 1, 20];

function specs(other: { readonly [name: string]: ReturnType<typeof f32> }) {
  return {
    q: f32(2, 5, 3, 4),
    k: f32(2, 5, 3, 4),
    v: f32(2, 5, 3, 6),
    c: f32(2, 5, 3, 4),
    b: f32(2, 5, 3, 4),
    logDecay: f32(2, 5, 3),
    phase: f32(2, 5, 3, 2),
    lambda: f32(3),
    ...other,
  };
}

export const sisaAttentionCases = casesOf(
  "sisaAttention",
  [
    whole("exact", {}, { expected: (values) => formula(values), ...few }),
    whole("exact-two-blocks", { B: 1, T: 66, H: 2 }, { expected: (values) => formula(values), ...few }),
    ...decays.map((decay) =>
      whole(
        `exact-decay-${decay}`,
        { B: 1, T: 130, H: 1 },
        {
          decay,
          speed: 2,
          expected: (values) => formula(values),
          gradientTolerance: smallGradient,
          slow: true,
          differences: fine(decay),
        },
      ),
    ),
    testCase({
      name: "exact-scale",
      inputs: tensors({}),
      program: (inputs) => sisaAttention(inputs, { scale: 2 }),
      expected: (values) => formula(values, 2),
      ...few,
    }),
    whole("exact-one-pair", { S: 2 }, { expected: (values) => formula(values), ...few }),
    whole("exact-one-token", { T: 1 }, { differences: "none", gradientTolerance: oneToken }),
    whole("exact-no-tokens", { T: 0 }),
    testCase({
      name: "sigmoid",
      inputs: tensors({ B: 1, T: 66, H: 2 }),
      program: (inputs) => sisaAttention(inputs, { weights: "sigmoid" }),
      expected: (values) => formula(values, 0.5, "exact", sigmoidsOf),
      gradientTolerance: smallGradient,
      ...few,
    }),
    whole("sdpa", {}, { form: "sdpa", expected: (values) => formula(values), ...few }),
    whole(
      "sdpa-two-blocks",
      { B: 1, T: 66, H: 2 },
      { form: "sdpa", decay: 0.1, expected: (values) => formula(values), ...few },
    ),
    whole("sdpa-one-token", { T: 1 }, { form: "sdpa", differences: "none", gradientTolerance: oneToken }),
    testCase({
      name: "sdpa-scale",
      inputs: tensors({}),
      program: (inputs) => sisaAttention(inputs, { scale: 2, form: "sdpa" }),
      expected: (values) => formula(values, 2),
      ...few,
    }),
    whole(
      "sdpa-clamped",
      { B: 1, T: 40, H: 2 },
      {
        form: "sdpa",
        decay: 2,
        expected: (values) => formula(values, 0.5, "sdpa"),
        ...few,
        note: "beyond the clamp, where it is not the formula",
      },
    ),
    testCase({
      name: "forms-agree",
      inputs: tensors({ B: 1, T: 20, H: 2 }, { decay: 0.5 }),
      program: (inputs) => sub(run("exact")(inputs), run("sdpa")(inputs)),
      expected: ({ v }) => ({ value: new Float64Array(v?.data.length ?? 0) }),
      tolerance: { absolute: 2e-5, reason: "a difference of equal numbers" },
      tolerances: { value: { absolute: 2e-5, angle: 2e-5, reason: "a difference of equal numbers" } },
      gradients: [],
      note: "while no clamp is active",
    }),
    whole(
      "exact-symbolic",
      { B: "B", T: "T" },
      {
        sizes: [
          { B: 2, T: 5 },
          { B: 1, T: 65 },
          { B: 1, T: 1 },
        ],
        gradientTolerance: oneToken,
        ...few,
      },
    ),
    whole(
      "sdpa-symbolic",
      { B: "B", T: "T" },
      {
        form: "sdpa",
        sizes: [
          { B: 2, T: 5 },
          { B: 1, T: 65 },
          { B: 1, T: 1 },
        ],
        gradientTolerance: oneToken,
        ...few,
      },
    ),
    testCase({
      name: "perf-exact-8x512",
      inputs: tensors({ B: 8, T: 512, H: 8, S: 16, D: 32 }),
      program: run("exact"),
      perf: true,
    }),
    testCase({
      name: "perf-sdpa-8x512",
      inputs: tensors({ B: 8, T: 512, H: 8, S: 16, D: 32 }),
      program: run("sdpa"),
      perf: true,
    }),
  ],
  [
    refusal({
      name: "phase",
      inputs: specs({ phase: f32(2, 5, 3, 4) }),
      program: (inputs) => sisaAttention(inputs),
      error: ShapeError,
      message: "sisaAttention: phase must be [B,T,H,S/2] = [2,5,3,2], got [2,5,3,4]",
    }),
    refusal({
      name: "odd state",
      inputs: specs({ c: f32(2, 5, 3, 5), b: f32(2, 5, 3, 5), phase: f32(2, 5, 3, 3) }),
      program: (inputs) => sisaAttention(inputs),
      error: ShapeError,
      message: "sisaAttention: S must be even, got 5",
    }),
    refusal({
      name: "lambda",
      inputs: specs({ lambda: f32(1) }),
      program: (inputs) => sisaAttention(inputs),
      error: ShapeError,
      message: "sisaAttention: lambda must be [H] = [3], got [1]",
    }),
    refusal({
      name: "keys of another length",
      inputs: specs({ k: f32(2, 6, 3, 4) }),
      program: (inputs) => sisaAttention(inputs),
      error: ShapeError,
      message: "sisaAttention: k must be [B,T,H,D] = [2,5,3,4], got [2,6,3,4]",
    }),
    refusal({
      name: "form",
      inputs: specs({}),
      program: (inputs) => sisaAttention(inputs, { form: "paper" as SisaForm }),
      error: ShapeError,
      message: 'sisaAttention: form must be "exact" or "sdpa", got "paper"',
    }),
    refusal({
      name: "sigmoid in stock attention",
      inputs: specs({}),
      program: (inputs) => sisaAttention(inputs, { form: "sdpa", weights: "sigmoid" }),
      error: ShapeError,
      message: 'sisaAttention: form "sdpa" is stock attention, which has no weights "sigmoid"; use form "exact"',
    }),
    refusal({
      name: "integers",
      inputs: { ...specs({}), logDecay: i32(2, 5, 3) },
      program: ({ logDecay, ...inputs }) => sisaAttention({ ...inputs, logDecay: logDecay as unknown as Tensor }),
      error: DTypeError,
      message: "sisaAttention: logDecay must be float, got int32[2,5,3]",
    }),
    refusal({
      name: "width without scale",
      inputs: specs({ q: f32(2, 5, 3, "D"), k: f32(2, 5, 3, "D") }),
      program: (inputs) => sisaAttention(inputs),
      error: ShapeError,
      message: "sisaAttention: expected a fixed width D for the default scale, got q [2,5,3,D]; pass scale",
    }),
  ],
);
