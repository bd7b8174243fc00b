import { apply, DTypeError, f32, i32, ShapeError, ssmPrepare, ssmPrepareBackwardOp, type Tensor } from "@sisa/core";
import { casesOf, floats, given, normals, refusal, testCase, type Values } from "../case.ts";
import { at } from "./formulas.ts";

type Size = number | string;

/** c, b, logDecay and phase for decays of about `decay` and angles of about `speed` a token. */
export function states(
  { B = 2, T = 5, H = 3, S = 4 }: { readonly B?: Size; readonly T?: Size; readonly H?: Size; readonly S?: number },
  { decay = 0.3, speed = 1 }: { readonly decay?: number; readonly speed?: number } = {},
) {
  return {
    c: normals([B, T, H, S]),
    b: normals([B, T, H, S]),
    logDecay: floats([B, T, H], { low: -1.8 * decay, high: -0.2 * decay }),
    phase: floats([B, T, H, S / 2], { low: 0, high: 2 * speed }),
  };
}

/** Everything in plain loops: sums within blocks of 64 positions, angles, and rotated pairs. */
function formula(values: Values) {
  const { c, b, logDecay, phase, gBefore, phaseBefore, start } = values;
  const [batches = 0, length = 0, heads = 0, width = 0] = c?.shape ?? [];
  const half = width / 2;
  const [cRotated, bRotated] = [new Float64Array(c?.data.length ?? 0), new Float64Array(c?.data.length ?? 0)];
  const g = new Float64Array(logDecay?.data.length ?? 0);
  const phi = new Float64Array(phase?.data.length ?? 0);
  for (let batch = 0; batch < batches; batch++) {
    for (let head = 0; head < heads; head++) {
      let total = gBefore ? at(gBefore, batch, head) : 0;
      const angles = Array.from({ length: half }, (_, n) => (phaseBefore ? at(phaseBefore, batch, head, n) : 0));
      for (let t = 0; t < length; t++) {
        const row = (batch * length + t) * heads + head;
        const position = t + (start ? at(start, batch) : 0);
        total = (position % 64 === 0 ? 0 : total) + at(logDecay, batch, t, head);
        g[row] = total;
        for (let n = 0; n < half; n++) {
          const angle = (angles[n] ?? 0) + at(phase, batch, t, head, n);
          angles[n] = angle;
          phi[row * half + n] = angle;
          const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
          for (const [from, to] of [
            [c, cRotated],
            [b, bRotated],
          ] as const) {
            const [x, y] = [at(from, batch, t, head, 2 * n), at(from, batch, t, head, 2 * n + 1)];
            to[row * width + 2 * n] = x * cos - y * sin;
            to[row * width + 2 * n + 1] = x * sin + y * cos;
          }
        }
      }
    }
  }
  return { cRotated, bRotated, g, phi };
}

const angle = { phi: { angle: 2e-6 } };
/** phi jumps by a turn, so gradients are taken of what it rotates. */
const smooth = (inputs: { readonly [N in keyof ReturnType<typeof states>]: Tensor }) => {
  const { cRotated, bRotated, g } = ssmPrepare(inputs);
  return { cRotated, bRotated, g };
};
const before = (batches: number) => ({
  gBefore: floats([batches, 3], { low: -1, high: 0 }),
  phaseBefore: floats([batches, 3, 2], { low: 0, high: 6 }),
});

export const ssmPrepareCases = casesOf(
  "ssmPrepare",
  [
    testCase({
      name: "from-zero",
      inputs: states({}),
      program: (inputs) => ({ ...ssmPrepare(inputs) }),
      tolerances: angle,
      expected: formula,
      gradients: [],
    }),
    testCase({ name: "gradients", inputs: states({}), program: smooth }),
    testCase({
      name: "several-blocks",
      inputs: states({ B: 1, T: 130, H: 2 }),
      program: (inputs) => ({ ...ssmPrepare(inputs) }),
      tolerances: angle,
      tolerance: { absolute: 1e-5, reason: "angles in float32" },
      expected: formula,
      gradients: [],
    }),
    testCase({
      name: "several-blocks-gradients",
      inputs: states({ B: 1, T: 130, H: 2 }),
      program: smooth,
      tolerance: { absolute: 1e-5, reason: "angles in float32" },
      differences: { elements: 1 },
    }),
    testCase({
      name: "continued",
      inputs: { ...states({ B: 3, T: 5 }), ...before(3), start: given(i32(3), [3, 62, 64]) },
      program: (inputs) => ({ ...ssmPrepare(inputs) }),
      tolerances: angle,
      tolerance: { absolute: 1e-5, reason: "angles in float32" },
      expected: formula,
      gradients: [],
      note: "from any position: sums restart at absolute multiples of 64",
    }),
    testCase({
      name: "one-token",
      inputs: { ...states({ B: 3, T: 1 }), ...before(3), start: given(i32(3), [3, 63, 128]) },
      program: (inputs) => ({ ...ssmPrepare(inputs) }),
      tolerances: angle,
      tolerance: { absolute: 1e-5, reason: "angles in float32" },
      expected: formula,
      gradients: [],
    }),
    testCase({
      name: "one-pair",
      inputs: states({ S: 2 }),
      program: smooth,
      tolerance: { absolute: 1e-5, reason: "angles in float32" },
    }),
    testCase({
      name: "no-tokens",
      inputs: states({ T: 0 }),
      program: (inputs) => ({ ...ssmPrepare(inputs) }),
      gradients: [],
    }),
    testCase({
      name: "symbolic",
      inputs: states({ B: "B", T: "T" }),
      program: smooth,
      tolerance: { absolute: 1e-5, reason: "angles in float32" },
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 65 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
      differences: { elements: 1 },
    }),
    testCase({
      name: "long",
      inputs: states({ B: 1, T: 8192, H: 1 }, { speed: 3 }),
      program: (inputs) => ({ ...ssmPrepare(inputs) }),
      tolerances: { phi: { angle: 5e-4, reason: "the bound of cumulativePhase" } },
      tolerance: { absolute: 2.5e-3, reason: "vectors of up to 5 rotated by an angle that is off by up to 5e-4" },
      expected: formula,
      gradients: [],
    }),
  ],
  [
    refusal({
      name: "odd width",
      inputs: { c: f32(2, 5, 3, 5), b: f32(2, 5, 3, 5), logDecay: f32(2, 5, 3), phase: f32(2, 5, 3, 2) },
      program: (inputs) => ssmPrepare(inputs).g,
      error: ShapeError,
      message: "ssmPrepare: S must be even, got 5",
    }),
    refusal({
      name: "phase",
      inputs: { c: f32(2, 5, 3, 4), b: f32(2, 5, 3, 4), logDecay: f32(2, 5, 3), phase: f32(2, 5, 3, 4) },
      program: (inputs) => ssmPrepare(inputs).g,
      error: ShapeError,
      message: "ssmPrepare: phase must be [B,T,H,S/2] = [2,5,3,2], got [2,5,3,4]",
    }),
    refusal({
      name: "half of what came before",
      inputs: {
        c: f32(2, 5, 3, 4),
        b: f32(2, 5, 3, 4),
        logDecay: f32(2, 5, 3),
        phase: f32(2, 5, 3, 2),
        gBefore: f32(2, 3),
      },
      program: (inputs) => ssmPrepare(inputs).g,
      error: ShapeError,
      message: "ssmPrepare: gBefore, phaseBefore and start go together; pass all or none",
    }),
    refusal({
      name: "float start",
      inputs: {
        c: f32(2, 5, 3, 4),
        b: f32(2, 5, 3, 4),
        logDecay: f32(2, 5, 3),
        phase: f32(2, 5, 3, 2),
        gBefore: f32(2, 3),
        phaseBefore: f32(2, 3, 2),
        start: f32(2),
      },
      program: ({ start, ...inputs }) => ssmPrepare({ ...inputs, start: start as unknown as Tensor<"int"> }).g,
      error: DTypeError,
      message: "ssmPrepare: start must be int, got float32[2]",
    }),
    refusal({
      name: "integers",
      inputs: { c: i32(2, 5, 3, 4), b: f32(2, 5, 3, 4), logDecay: f32(2, 5, 3), phase: f32(2, 5, 3, 2) },
      program: ({ c, ...inputs }) => ssmPrepare({ ...inputs, c: c as unknown as Tensor }).g,
      error: DTypeError,
      message: "ssmPrepare: c must be float, got int32[2,5,3,4]",
    }),
  ],
);

/** What ssmPrepare gives for such sizes, and gradients by all of it. */
function results({
  B = 2,
  T = 5,
  H = 3,
  S = 4,
}: {
  readonly B?: Size;
  readonly T?: Size;
  readonly H?: Size;
  readonly S?: number;
}) {
  const vectors = normals([B, T, H, S]);
  const sums = normals([B, T, H]);
  const phi = floats([B, T, H, S / 2], { low: 0, high: 6 });
  return { cRotated: vectors, bRotated: vectors, phi, cGradient: vectors, bGradient: vectors, gGradient: sums };
}

export const ssmPrepareBackwardCases = casesOf("ssmPrepareBackward", [
  testCase({
    name: "one-block",
    inputs: results({}),
    program: (inputs) => ({ ...apply(ssmPrepareBackwardOp, inputs, {}) }),
    gradients: [],
    note: "also run by the gradients of ssmPrepare",
  }),
  testCase({
    name: "several-blocks",
    inputs: { ...results({ B: 1, T: 150, H: 2 }), phiGradient: normals([1, 150, 2, 2]) },
    program: (inputs) => ({ ...apply(ssmPrepareBackwardOp, inputs, {}) }),
    tolerance: { absolute: 1e-4, reason: "sums of 150 terms in float32" },
    gradients: [],
  }),
  testCase({
    name: "symbolic",
    inputs: results({ B: "B", T: "T" }),
    program: (inputs) => ({ ...apply(ssmPrepareBackwardOp, inputs, {}) }),
    sizes: [
      { B: 2, T: 5 },
      { B: 1, T: 65 },
      { B: 2, T: 0 },
    ],
    tolerance: { absolute: 1e-4, reason: "sums of 65 terms in float32" },
    gradients: [],
  }),
]);
