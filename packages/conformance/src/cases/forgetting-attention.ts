import {
  apply,
  blockCumulativeSum,
  decayBlock,
  f32,
  forgettingAttention,
  forgettingAttentionBackwardOp,
  forgettingAttentionOp,
  i32,
  ShapeError,
  slice,
  type Tensor,
} from "@sisa/core";
import { type Case, casesOf, floats, given, normals, refusal, testCase, type Values } from "../case.ts";
import { at, attend, dot } from "./formulas.ts";

type Size = number | string;
type Sizes = { readonly B?: Size; readonly T?: Size; readonly C?: Size; readonly H?: Size };

function tensors({ B = 2, T = 5, C = T, H = 3 }: Sizes, decay = 0.3) {
  return {
    q: normals([B, T, H, 4]),
    k: normals([B, C, H, 4]),
    v: normals([B, C, H, 6]),
    logGate: floats([B, C, H], { low: -1.8 * decay, high: -0.2 * decay }),
  };
}

/** The definition with sums over the whole sequence in float64. */
function formula(values: Values, window = Number.POSITIVE_INFINITY, sinks = 0) {
  const { q, k, v, logGate, queryStart } = values;
  const [batches = 0, queries = 0, heads = 0, width = 0] = q?.shape ?? [];
  const [, keys = 0] = k?.shape ?? [];
  const value = attend([batches, queries, heads], v, (batch, head, i, j) => {
    const position = i + (queryStart ? at(queryStart, batch) : 0);
    if (j > position || (j <= position - window && j >= sinks)) return Number.NEGATIVE_INFINITY;
    let forgotten = 0;
    for (let t = j + 1; logGate && t <= Math.min(position, keys - 1); t++) forgotten += at(logGate, batch, t, head);
    const content = dot(
      width,
      (d) => at(q, batch, i, head, d),
      (d) => at(k, batch, j, head, d),
    );
    return 0.5 * content + forgotten;
  });
  return { value };
}

type Traced = { readonly [N in keyof ReturnType<typeof tensors>]: Tensor };

const sumsOf = (x: Tensor) => blockCumulativeSum({ x }, { size: decayBlock });

const program = ({ logGate, ...inputs }: Traced) => {
  const g = sumsOf(logGate);
  return forgettingAttention({ ...inputs, gQuery: g, gKey: g });
};

const few = { differences: { elements: 1 } } as const;
const smallGradient = { absolute: 1e-6, reason: "the gradient of log gates is a difference of larger sums" };

const square = (name: string, sizes: Sizes, more: Partial<Case> = {}): Case => ({
  ...testCase({ name, inputs: tensors(sizes), program, expected: formula, gradientTolerance: smallGradient, ...few }),
  ...more,
});

export const forgettingAttentionCases = casesOf(
  "forgettingAttention",
  [
    square("gates", {}, { differences: {} }),
    square("two-blocks", { B: 1, T: 70, H: 2 }),
    square("several-blocks", { B: 1, T: 200, H: 1 }, { slow: true }),
    square("one-token", { T: 1 }, { differences: "none" }),
    square(
      "symbolic",
      { B: "B", T: "T" },
      {
        sizes: [
          { B: 2, T: 5 },
          { B: 1, T: 65 },
          { B: 1, T: 1 },
        ],
      },
    ),
    testCase({
      name: "window-alone",
      inputs: { q: normals([2, 9, 2, 4]), k: normals([2, 9, 2, 4]), v: normals([2, 9, 2, 3]) },
      program: (inputs) => forgettingAttention(inputs, { window: 3 }),
      expected: (values) => formula(values, 3),
    }),
    testCase({
      name: "window-and-sinks",
      inputs: tensors({ B: 1, T: 70, H: 2 }),
      program: ({ logGate, ...inputs }) => {
        const g = sumsOf(logGate);
        return forgettingAttention({ ...inputs, gQuery: g, gKey: g }, { window: 10, sinks: 2 });
      },
      expected: (values) => formula(values, 10, 2),
      gradientTolerance: smallGradient,
      ...few,
    }),
    testCase({
      name: "cached",
      inputs: { ...tensors({ B: 2, T: 1, C: 80 }), queryStart: given(i32(2), [79, 79]) },
      program: ({ logGate, queryStart, ...inputs }) => {
        const g = sumsOf(logGate);
        const gQuery = slice(g, { axis: 1, start: 79 });
        return forgettingAttention({ ...inputs, gQuery, gKey: g, queryStart }, { window: 20, sinks: 1 });
      },
      expected: (values) => formula(values, 20, 1),
      gradients: [],
    }),
    testCase({
      name: "perf-8x512",
      inputs: {
        q: normals([8, 512, 4, 64]),
        k: normals([8, 512, 4, 64]),
        v: normals([8, 512, 4, 64]),
        logGate: floats([8, 512, 4], { low: -0.5, high: 0 }),
      },
      program,
      perf: true,
    }),
  ],
  [
    refusal({
      name: "one g",
      inputs: { q: f32(2, 5, 3, 4), k: f32(2, 5, 3, 4), v: f32(2, 5, 3, 4), gQuery: f32(2, 5, 3) },
      program: (inputs) => forgettingAttention(inputs),
      error: ShapeError,
      message: "forgettingAttention: gQuery and gKey go together",
    }),
    refusal({
      name: "window",
      inputs: { q: f32(2, 5, 3, 4), k: f32(2, 5, 3, 4), v: f32(2, 5, 3, 4) },
      program: (inputs) => forgettingAttention(inputs, { window: -1 }),
      error: ShapeError,
      message: "forgettingAttention: window must be a whole number >= 0, got -1",
    }),
  ],
);

export const forgettingAttentionBackwardCases = casesOf("forgettingAttentionBackward", [
  testCase({
    name: "two-blocks",
    inputs: { ...tensors({ B: 1, T: 70, H: 2 }), gradient: normals([1, 70, 2, 6]) },
    program: ({ logGate, gradient, ...inputs }) => {
      const g = sumsOf(logGate);
      const attributes = { scale: 0.5, window: 0, sinks: 0 };
      const outputs = apply(forgettingAttentionOp, { ...inputs, gQuery: g, gKey: g }, attributes);
      return apply(forgettingAttentionBackwardOp, { ...inputs, gQuery: g, gKey: g, ...outputs, gradient }, attributes);
    },
    gradients: [],
    note: "also run by the gradients of forgettingAttention",
  }),
]);
