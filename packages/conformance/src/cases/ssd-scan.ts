import { apply, DTypeError, f32, i32, ShapeError, ssdScan, ssdScanBackwardOp, type Tensor } from "@sisa/core";
import { type Case, casesOf, floats, normals, refusal, testCase, type Values } from "../case.ts";
import { at, dot } from "./formulas.ts";

type Size = number | string;

interface Sizes {
  readonly B?: Size;
  readonly T?: Size;
  readonly R?: number;
  readonly H?: number;
  readonly G?: number;
  readonly N?: number;
  readonly P?: number;
}

function tensors({ B = 2, T = 5, R = 1, H = 4, G = 2, N = 3, P = 2 }: Sizes, decay = 0.3) {
  return {
    x: normals([B, T, R, H, P]),
    b: normals([B, T, R, G, N]),
    c: normals([B, T, R, G, N]),
    logDecay: floats([B, T, H], { low: -1.8 * decay, high: -0.2 * decay }),
  };
}

/** The recurrence in plain loops. */
function recurrence({ x, b, c, logDecay, state: initial }: Values, strict = false) {
  const [batches = 0, length = 0, rank = 0, heads = 0, P = 0] = x?.shape ?? [];
  const [, , , groups = 1, N = 0] = b?.shape ?? [];
  const value = new Float64Array(x?.data.length ?? 0);
  const state = new Float64Array(batches * heads * N * P);
  for (let batch = 0; batch < batches; batch++) {
    for (let head = 0; head < heads; head++) {
      const group = Math.floor(head / (heads / groups));
      const own = state.subarray((batch * heads + head) * N * P, (batch * heads + head + 1) * N * P);
      own.forEach((_, place) => {
        own[place] = initial ? at(initial, batch, head, Math.floor(place / P), place % P) : 0;
      });
      for (let t = 0; t < length; t++) {
        const decayed = own.map((h) => h * Math.exp(at(logDecay, batch, t, head)));
        own.forEach((_, place) => {
          const [n, p] = [Math.floor(place / P), place % P];
          const written = dot(
            rank,
            (r) => at(b, batch, t, r, group, n),
            (r) => at(x, batch, t, r, head, p),
          );
          own[place] = (decayed[place] ?? 0) + written;
        });
        const seen = strict ? decayed : own;
        for (let r = 0; r < rank; r++) {
          for (let p = 0; p < P; p++) {
            const index = (((batch * length + t) * rank + r) * heads + head) * P + p;
            value[index] = dot(
              N,
              (n) => at(c, batch, t, r, group, n),
              (n) => seen[n * P + p] ?? 0,
            );
          }
        }
      }
    }
  }
  return { value, state };
}

const scanned = (values: Values) => ({ value: recurrence(values).value });
const value = (inputs: Parameters<typeof ssdScan>[0]) => ssdScan(inputs).value;
const few = { differences: { elements: 1 } } as const;
/** Mean decay per step: from states that remember 8,192 steps to states that forget at once. */
const decays = [0.001, 0.05, 1, 20];

function whole(name: string, sizes: Sizes, options: Partial<Pick<Case, "differences" | "sizes">> = few): Case {
  return testCase({ name, inputs: tensors(sizes), program: value, expected: scanned, ...few, ...options });
}

export const ssdScanCases = casesOf(
  "ssdScan",
  [
    whole("one-chunk", {}, { differences: {} }),
    whole("a-head-per-group", { H: 3, G: 3 }),
    whole("one-group", { H: 3, G: 1, T: 70 }),
    whole("one-head", { H: 1, G: 1, B: 1 }),
    whole("one-step", { T: 1 }),
    whole("no-steps", { T: 0 }),
    whole("two-chunks", { B: 1, T: 65 }),
    whole("several-chunks", { B: 1, T: 200, H: 2, G: 1 }),
    whole("rank", { R: 3, T: 70, H: 2, G: 2, B: 1 }),
    testCase({
      name: "strict",
      inputs: tensors({ R: 2, T: 70, B: 1 }),
      program: (inputs) => ssdScan(inputs, { strict: true }).value,
      expected: (values) => ({ value: recurrence(values, true).value }),
      ...few,
    }),
    testCase({
      name: "continued",
      inputs: { ...tensors({ T: 130, R: 2 }), state: normals([2, 4, 3, 2]) },
      program: (inputs) => ({ ...ssdScan(inputs) }),
      expected: recurrence,
      gradients: [],
    }),
    testCase({
      name: "continued-one-step",
      inputs: { ...tensors({ T: 1 }), state: normals([2, 4, 3, 2]) },
      program: (inputs) => ({ ...ssdScan(inputs) }),
      expected: recurrence,
      gradients: [],
    }),
    testCase({
      name: "from-nothing",
      inputs: tensors({ T: 130 }),
      program: (inputs) => ({ ...ssdScan(inputs) }),
      expected: recurrence,
      gradients: [],
    }),
    testCase({
      name: "no-decay",
      inputs: { ...tensors({ B: 1, T: 130 }), logDecay: floats([1, 130, 4], { low: 0, high: 0 }) },
      program: value,
      expected: scanned,
      ...few,
    }),
    whole(
      "symbolic",
      { B: "B", T: "T" },
      {
        sizes: [
          { B: 2, T: 5 },
          { B: 1, T: 65 },
          { B: 1, T: 1 },
          { B: 2, T: 0 },
        ],
      },
    ),
    ...decays.map((decay) =>
      testCase({
        name: `long-decay-${decay}`,
        inputs: tensors({ B: 1, T: 8192, H: 1, G: 1, N: 4, P: 2 }, decay),
        program: value,
        expected: scanned,
        gradients: [],
        slow: true,
      }),
    ),
    ...decays.map((decay) =>
      testCase({
        name: `gradient-decay-${decay}`,
        inputs: tensors({ B: 1, T: 300, H: 1, G: 1 }, decay),
        program: value,
        expected: scanned,
        differences: { elements: 1 },
      }),
    ),
    testCase({
      name: "perf-mamba2-8x512",
      inputs: tensors({ B: 8, T: 512, H: 8, G: 1, N: 64, P: 64 }),
      program: value,
      perf: true,
    }),
  ],
  [
    refusal({
      name: "groups",
      inputs: { x: f32(2, 5, 1, 4, 2), b: f32(2, 5, 1, 3, 3), c: f32(2, 5, 1, 3, 3), logDecay: f32(2, 5, 4) },
      program: (inputs) => ssdScan(inputs).value,
      error: ShapeError,
      message: "ssdScan: R, H and G must be fixed numbers, and G divide H; got R 1, H 4, G 3",
    }),
    refusal({
      name: "state",
      inputs: {
        x: f32(2, 5, 1, 4, 2),
        b: f32(2, 5, 1, 2, 3),
        c: f32(2, 5, 1, 2, 3),
        logDecay: f32(2, 5, 4),
        state: f32(2, 4, 2, 3),
      },
      program: (inputs) => ssdScan(inputs).value,
      error: ShapeError,
      message: "ssdScan: state must be [B,H,N,P] = [2,4,3,2], got [2,4,2,3]",
    }),
    refusal({
      name: "integers",
      inputs: { x: i32(2, 5, 1, 4, 2), b: f32(2, 5, 1, 2, 3), c: f32(2, 5, 1, 2, 3), logDecay: f32(2, 5, 4) },
      program: ({ x, ...inputs }) => ssdScan({ ...inputs, x: x as unknown as Tensor }).value,
      error: DTypeError,
      message: "ssdScan: x must be float, got int32[2,5,1,4,2]",
    }),
  ],
);

export const ssdScanBackwardCases = casesOf(
  "ssdScanBackward",
  [
    testCase({
      name: "two-chunks",
      inputs: { ...tensors({ B: 1, T: 65, R: 2 }), gradient: normals([1, 65, 2, 4, 2]) },
      program: (inputs) => ({ ...apply(ssdScanBackwardOp, inputs, { strict: false }) }),
      note: "also run by the gradients of ssdScan",
      ...few,
    }),
    testCase({
      name: "symbolic",
      inputs: { ...tensors({ B: "B", T: "T" }), gradient: normals(["B", "T", 1, 4, 2]) },
      program: (inputs) => ({ ...apply(ssdScanBackwardOp, inputs, { strict: true }) }),
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 65 },
        { B: 1, T: 1 },
      ],
      ...few,
    }),
  ],
  [
    refusal({
      name: "gradient",
      inputs: {
        x: f32(2, 5, 1, 4, 2),
        b: f32(2, 5, 1, 2, 3),
        c: f32(2, 5, 1, 2, 3),
        logDecay: f32(2, 5, 4),
        gradient: f32(2, 5, 1, 4, 3),
      },
      program: (inputs) => apply(ssdScanBackwardOp, inputs, { strict: false }).x,
      error: ShapeError,
      message: "ssdScanBackward: gradient must have the shape of x, [2,5,1,4,2], got [2,5,1,4,3]",
    }),
  ],
);
