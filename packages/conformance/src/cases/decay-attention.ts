import {
  add,
  apply,
  blockCumulativeSum,
  broadcastTo,
  cacheRead,
  concat,
  DTypeError,
  decayAttention,
  decayAttentionBackwardOp,
  decayAttentionOp,
  decayBlock,
  f32,
  GraphError,
  i32,
  ShapeError,
  slice,
  ssmPrepare,
  type Tensor,
} from "@sisa/core";
import {
  type Case,
  casesOf,
  type Differences,
  floats,
  given,
  normals,
  otherFloats,
  refusal,
  testCase,
  type Values,
} from "../case.ts";
import { at, attend, dot, softmaxOf } from "./formulas.ts";
import { allInOrder, longPages, pageTable, pooled, pooledSums } from "./pages.ts";

type Size = number | string;
type Sizes = { readonly B?: Size; readonly T?: Size; readonly C?: Size; readonly H?: Size };

/** Inputs that no precision policy narrows. */
const gates = ["logDecay", "lambda"];

/** Everything but the sums of decay, which programs make from `logDecay` [B,C,H]. */
export function tensors({ B = 2, T = 5, C = T, H = 3 }: Sizes, decay = 0.3) {
  return {
    q: normals([B, T, H, 4]),
    k: normals([B, C, H, 4]),
    v: normals([B, C, H, 6]),
    cRotated: normals([B, T, H, 2]),
    bRotated: normals([B, C, H, 2]),
    logDecay: floats([B, C, H], { low: -1.8 * decay, high: -0.2 * decay }),
    lambda: floats([H], { low: 0.2, high: 1.5 }),
  };
}

/** The definition with global sums in float64. Queries begin at `queryStart`; g of a query is that of the key there. */
export function formula(values: Values, scale = 0.5, weigh = softmaxOf) {
  const { q, k, v, cRotated, bRotated, logDecay, lambda, queryStart, keyLength } = values;
  const [batches = 0, queries = 0, heads = 0, width = 0] = q?.shape ?? [];
  const [, keys = 0] = k?.shape ?? [];
  const state = cRotated?.shape[3] ?? 0;
  const g = Array.from({ length: batches * heads }, (_, row) => {
    let total = 0;
    return Array.from({ length: keys }, (_, t) => {
      total += at(logDecay, Math.floor(row / heads), t, row % heads);
      return total;
    });
  });
  const value = attend(
    [batches, queries, heads],
    v,
    (batch, head, i, j) => {
      const position = i + (queryStart ? at(queryStart, batch) : 0);
      if (j > position || (keyLength && j >= at(keyLength, batch))) return Number.NEGATIVE_INFINITY;
      const sums = g[batch * heads + head] ?? [];
      const decay = Math.exp((sums[position] ?? 0) - (sums[j] ?? 0));
      const content = dot(
        width,
        (d) => at(q, batch, i, head, d),
        (d) => at(k, batch, j, head, d),
      );
      const signal = dot(
        state,
        (s) => at(cRotated, batch, i, head, s),
        (s) => at(bRotated, batch, j, head, s),
      );
      return scale * content + at(lambda, head) * decay * signal;
    },
    weigh,
  );
  return { value };
}

export type Traced = { readonly [N in keyof ReturnType<typeof tensors>]: Tensor };

export const sumsOf = (x: Tensor) => blockCumulativeSum({ x }, { size: decayBlock });

/** As many queries as keys, from position 0. */
const program = ({ logDecay, ...inputs }: Traced) => {
  const g = sumsOf(logDecay);
  return decayAttention({ ...inputs, gQuery: g, gKey: g });
};

const square = (name: string, sizes: Sizes, more: Partial<Case> & { readonly decay?: number } = {}): Case => {
  const { decay, ...options } = more;
  return { ...testCase({ name, inputs: tensors(sizes, decay), program }), ...options };
};

/** Queries at `starts` against a cache of C keys; g of the queries is taken from the same sums. */
export function cached(
  name: string,
  { T, C, starts, lengths }: { T: number; C: number; starts: number[]; lengths?: number[] },
  attend: typeof decayAttention = decayAttention,
  weigh = softmaxOf,
) {
  const B = starts.length;
  return testCase({
    name,
    inputs: {
      ...tensors({ B, T, C }),
      queryStart: given(i32(B), starts),
      ...(lengths && { keyLength: given(i32(B), lengths) }),
    },
    program: ({ logDecay, ...inputs }) => {
      const g = sumsOf(logDecay);
      const rows = starts.map((start, batch) =>
        slice(slice(g, { axis: 0, start: batch, end: batch + 1 }), { axis: 1, start, end: start + T }),
      );
      return attend({ ...inputs, gQuery: concat(rows, { axis: 0 }), gKey: g });
    },
    expected: (values) => formula(values, 0.5, weigh),
    gradients: [],
  });
}

/** T queries at the end of each sequence, whose keys lie in pages. */
function paged(name: string, T: number, { unused, ...options }: Partial<Case> & { readonly unused?: number } = {}) {
  const { lengths } = longPages;
  const B = lengths.length;
  const starts = lengths.map((length) => length - T);
  return {
    ...testCase({
      name,
      inputs: {
        q: normals([B, T, 2, 4]),
        k: pooled(longPages, [2, 4], { unused }),
        v: pooled(longPages, [2, 6], { unused }),
        cRotated: normals([B, T, 2, 2]),
        bRotated: pooled(longPages, [2, 2], { unused }),
        gKey: pooledSums(longPages, 2, { unused }),
        lambda: floats([2], { low: 0.2, high: 1.5 }),
        queryStart: given(i32(B), starts),
        pages: pageTable(longPages),
      },
      program: (inputs) => {
        const sums = cacheRead(inputs.gKey, inputs.pages, add<"int">(inputs.queryStart, T));
        const rows = starts.map((start, batch) =>
          slice(slice(sums, { axis: 0, start: batch, end: batch + 1 }), { axis: 1, start, end: start + T }),
        );
        return decayAttention({ ...inputs, gQuery: concat(rows, { axis: 0 }) });
      },
      expected: (values) => {
        const ordered = allInOrder(values, ["k", "v", "bRotated", "gKey"], longPages);
        return formula({ ...ordered, logDecay: stepsOf(ordered.gKey) });
      },
      gradients: [],
    }),
    ...options,
  };
}

/** The decay of each token from sums within blocks, [B,C,H]. */
function stepsOf(sums: Values[string] | undefined): Values[string] {
  const { shape, data } = sums ?? { shape: [], data: new Float64Array() };
  const [, , heads = 1] = shape;
  const isFirst = (index: number) => index % (decayBlock * heads) < heads;
  const steps = Float64Array.from(data, (sum, index) => sum - (isFirst(index) ? 0 : (data[index - heads] ?? 0)));
  return { shape, data: steps };
}

/** Steps so small that sums of decay stay below zero, which is where they are smooth. */
export function fine(decay: number): Differences {
  return { elements: 1, step: Math.min(1e-4, decay * 1e-3), relative: 1e-5 };
}

/** Between tokens that have forgotten one another nothing is left to be differentiated. */
export const smallGradient = { absolute: 1e-6, reason: "the gradient of logDecay is a difference of larger sums" };

const oneToken = { absolute: 1e-6, reason: "zero but for rounding where there is one token" };

/** Decays per token, from almost none to complete. */
const decays = [0.001, 0.05, 1, 20];

/** 64 rows of a sequence of 8,192 in four windows, against all keys before them. */
const windows = [0, 2731, 5400, 8176];

function long(decay: number): Case {
  return testCase({
    name: `long-decay-${decay}`,
    inputs: {
      q: normals([4, 16, 1, 4]),
      k: normals([1, 8192, 1, 4]),
      v: normals([1, 8192, 1, 2]),
      c: normals([1, 8192, 1, 2]),
      b: normals([1, 8192, 1, 2]),
      logDecay: floats([1, 8192, 1], { low: -1.8 * decay, high: -0.2 * decay }),
      phase: floats([1, 8192, 1, 1], { low: 0, high: 6 }),
      lambda: given(f32(1), [0.7]),
      queryStart: given(i32(4), windows),
    },
    program: ({ q, k, v, c, b, logDecay, phase, lambda, queryStart }) => {
      const { cRotated, bRotated, g } = ssmPrepare({ c, b, logDecay, phase });
      const rows = (x: Tensor) =>
        concat(
          windows.map((start) => slice(x, { axis: 1, start, end: start + 16 })),
          { axis: 0 },
        );
      const all = (x: Tensor) => broadcastTo(x, [4, ...x.shape.slice(1)]);
      return decayAttention({
        q,
        k: all(k),
        v: all(v),
        cRotated: rows(cRotated),
        bRotated: all(bRotated),
        gQuery: rows(g),
        gKey: all(g),
        lambda,
        queryStart,
      });
    },
    expected: sampledRows,
    expectedNmse: 1e-18,
    tolerance: { nmse: 1e-6, reason: "angles may be off by 5e-4 after 8,192 tokens, decay factors by 2e-5" },
    gradients: [],
    slow: true,
    note: "8,192 tokens, 64 rows, angles of 3 rad a token",
  });
}

/** The same rows from the definition, with global sums in float64. */
function sampledRows({ q, k, v, c, b, logDecay, phase, lambda }: Values) {
  const rotate = (x: Values[string] | undefined) => {
    let angle = 0;
    return Array.from({ length: 8192 }, (_, t) => {
      angle += at(phase, 0, t, 0, 0);
      const [x0, x1] = [at(x, 0, t, 0, 0), at(x, 0, t, 0, 1)];
      return [x0 * Math.cos(angle) - x1 * Math.sin(angle), x0 * Math.sin(angle) + x1 * Math.cos(angle)] as const;
    });
  };
  let total = 0;
  const g = Array.from({ length: 8192 }, (_, t) => {
    total += at(logDecay, 0, t, 0);
    return total;
  });
  const [read, write] = [rotate(c), rotate(b)];
  const value = windows.flatMap((start, window) => [
    ...attend([1, 16, 1], v, (_batch, _head, i, j) => {
      const position = start + i;
      if (j > position) return Number.NEGATIVE_INFINITY;
      const [[c0, c1], [b0, b1]] = [read[position] ?? [0, 0], write[j] ?? [0, 0]];
      const content = dot(
        4,
        (d) => at(q, window, i, 0, d),
        (d) => at(k, 0, j, 0, d),
      );
      const decay = Math.exp((g[position] ?? 0) - (g[j] ?? 0));
      return 0.5 * content + at(lambda, 0) * decay * (c0 * b0 + c1 * b1);
    }),
  ]);
  return { value };
}

/** Inputs of a refusal, some of them other than they should be. */
function specs(other: { readonly [name: string]: ReturnType<typeof f32> }) {
  return {
    q: f32(2, 5, 3, 4),
    k: f32(2, 5, 3, 4),
    v: f32(2, 5, 3, 6),
    cRotated: f32(2, 5, 3, 2),
    bRotated: f32(2, 5, 3, 2),
    gQuery: f32(2, 5, 3),
    gKey: f32(2, 5, 3),
    lambda: f32(3),
    ...other,
  };
}

const pools = { k: f32(7, 8, 3, 4), v: f32(7, 8, 3, 6), bRotated: f32(7, 8, 3, 2), gKey: f32(7, 8, 3) };

export const decayAttentionCases = casesOf(
  "decayAttention",
  [
    square("one-block", {}, { expected: (values) => formula(values) }),
    square(
      "block-edge",
      { B: 1, T: 64, H: 1 },
      {
        expected: (values) => formula(values),
        differences: { elements: 1 },
        gradientTolerance: { nmse: 1e-6, reason: "the gradient of lambda is a small difference of larger sums" },
      },
    ),
    square(
      "two-blocks",
      { B: 1, T: 65, H: 2 },
      { expected: (values) => formula(values), differences: { elements: 1 } },
    ),
    square(
      "three-blocks",
      { B: 1, T: 150, H: 1 },
      { expected: (values) => formula(values), differences: { elements: 1 }, slow: true },
    ),
    ...decays.map((decay) =>
      square(
        `decay-${decay}`,
        { B: 1, T: 130, H: 1 },
        {
          decay,
          expected: (values) => formula(values),
          differences: fine(decay),
          gradientTolerance: smallGradient,
          slow: true,
        },
      ),
    ),
    square(
      "no-decay",
      { B: 1, T: 5, H: 1 },
      { decay: 0, gradients: ["q", "k", "v", "cRotated", "bRotated", "lambda"] },
    ),
    square("one-token", { T: 1 }, { differences: "none", gradientTolerance: oneToken }),
    square("no-tokens", { T: 0 }),
    square("no-batch", { B: 0 }),
    testCase({
      name: "scale",
      inputs: tensors({}),
      program: ({ logDecay, ...inputs }) => {
        const g = sumsOf(logDecay);
        return decayAttention({ ...inputs, gQuery: g, gKey: g }, { scale: 2 });
      },
      expected: (values) => formula(values, 2),
    }),
    cached("decode", { T: 1, C: 9, starts: [0, 4, 8], lengths: [1, 5, 9] }),
    cached("chunk", { T: 4, C: 9, starts: [0, 3, 5], lengths: [4, 7, 9] }),
    cached("decode-blocks", { T: 1, C: 200, starts: [63, 64, 199], lengths: [64, 65, 200] }),
    cached("chunk-over-block", { T: 9, C: 140, starts: [60, 120, 0], lengths: [69, 129, 9] }),
    cached("no-length", { T: 3, C: 140, starts: [60, 130] }),
    paged("pages-decode", 1),
    paged("pages-chunk", 9),
    paged("pages-unused-rows", 2, { unused: Number.NaN, ieee: true }),
    square(
      "symbolic",
      { B: "B", T: "T" },
      {
        sizes: [
          { B: 2, T: 5 },
          { B: 1, T: 65 },
          { B: 1, T: 1 },
        ],
        differences: { elements: 1 },
        gradientTolerance: oneToken,
      },
    ),
    testCase({
      name: "symbolic-cache",
      inputs: {
        ...tensors({ B: "B", T: "T", C: "C" }),
        gQuery: floats(["B", "T", 3], { low: -2, high: -1 }),
        queryStart: given(i32("B"), [66, 70]),
        keyLength: given(i32("B"), [67, 72]),
      },
      program: ({ logDecay, ...inputs }) => decayAttention({ ...inputs, gKey: sumsOf(logDecay) }),
      sizes: [
        { B: 2, T: 1, C: 80 },
        { B: 1, T: 2, C: 128 },
      ],
      gradients: [],
    }),
    ...decays.map(long),
    testCase({
      name: "perf-train-512",
      inputs: {
        q: normals([8, 512, 8, 32]),
        k: normals([8, 512, 8, 32]),
        v: normals([8, 512, 8, 32]),
        cRotated: normals([8, 512, 8, 16]),
        bRotated: normals([8, 512, 8, 16]),
        logDecay: floats([8, 512, 8], { low: -0.1, high: 0 }),
        lambda: floats([8], { low: 0.2, high: 1 }),
      },
      program,
      perf: true,
    }),
    testCase({
      name: "bfloat16-float32-gates",
      inputs: Object.fromEntries(
        Object.entries(tensors({ B: 1, T: 70, H: 2 })).map(([name, recipe]) => [
          name,
          { ...recipe, spec: { ...recipe.spec, dtype: gates.includes(name) ? "float32" : "bfloat16" } },
        ]),
      ) as ReturnType<typeof tensors>,
      program,
      gradientTolerance: { nmse: 1e-4, reason: "probabilities are rounded before they are multiplied" },
      note: "what a bfloat16 policy runs: decays and lambda stay float32",
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: Object.fromEntries(
          Object.entries(tensors({ B: 1, T: 5, H: 2 })).map(([name, recipe]) => [
            name,
            { ...recipe, spec: { ...recipe.spec, dtype } },
          ]),
        ) as ReturnType<typeof tensors>,
        program,
        ...(dtype !== "float64" && {
          tolerance: {
            nmse: dtype === "float16" ? 1e-5 : 1e-3,
            reason: "scores are rounded before they are exponents",
          },
          gradientTolerance: {
            nmse: dtype === "float16" ? 1e-3 : 5e-2,
            reason: "the gradient of logDecay is a difference of larger sums",
          },
        }),
      }),
    ),
  ],
  [
    refusal({
      name: "width of the state",
      inputs: specs({ bRotated: f32(2, 5, 3, 4) }),
      program: (inputs) => decayAttention(inputs),
      error: ShapeError,
      message: "decayAttention: bRotated must be [B,C,H,S] = [2,5,3,2], got [2,5,3,4]",
    }),
    refusal({
      name: "sums of decay",
      inputs: specs({ gKey: f32(2, 3, 5) }),
      program: (inputs) => decayAttention(inputs),
      error: ShapeError,
      message: "decayAttention: gKey must be [B,C,H] = [2,5,3], got [2,3,5]",
    }),
    refusal({
      name: "pages without a start",
      inputs: { ...specs({ ...pools }), pages: i32(2, 4) },
      program: (inputs) => decayAttention(inputs),
      error: GraphError,
      message: "decayAttention: pages are read up to each query: pass queryStart, and be causal",
    }),
    refusal({
      name: "sums of decay in pages",
      inputs: { ...specs({ ...pools, gKey: f32(7, 3, 8) }), queryStart: i32(2), pages: i32(2, 4) },
      program: (inputs) => decayAttention(inputs),
      error: ShapeError,
      message: "decayAttention: gKey must be [N,P,H] = [7,8,3], got [7,3,8]",
    }),
    refusal({
      name: "lambda",
      inputs: specs({ lambda: f32() }),
      program: (inputs) => decayAttention(inputs),
      error: ShapeError,
      message: "decayAttention: lambda must be [H] = [3], got []",
    }),
    refusal({
      name: "float start",
      inputs: { ...specs({}), queryStart: f32(2) },
      program: ({ queryStart, ...inputs }) =>
        decayAttention({ ...inputs, queryStart: queryStart as unknown as Tensor<"int"> }),
      error: DTypeError,
      message: "decayAttention: queryStart must be int, got float32[2]",
    }),
    refusal({
      name: "integer lambda",
      inputs: { ...specs({}), lambda: i32(3) },
      program: ({ lambda, ...inputs }) => decayAttention({ ...inputs, lambda: lambda as unknown as Tensor }),
      error: DTypeError,
      message: "decayAttention: lambda must be float, got int32[3]",
    }),
    refusal({
      name: "width without scale",
      inputs: specs({ q: f32(2, 5, 3, "D"), k: f32(2, 5, 3, "D") }),
      program: (inputs) => decayAttention(inputs),
      error: ShapeError,
      message: "decayAttention: expected a fixed width D for the default scale, got q [2,5,3,D]; pass scale",
    }),
  ],
);

const backward = ({ logDecay, gradient, ...inputs }: Traced & { readonly gradient: Tensor }) => {
  const g = sumsOf(logDecay);
  const forward = apply(decayAttentionOp, { ...inputs, gQuery: g, gKey: g }, { scale: 0.5 });
  return apply(decayAttentionBackwardOp, { ...inputs, gQuery: g, gKey: g, ...forward, gradient }, { scale: 0.5 });
};

export const decayAttentionBackwardCases = casesOf("decayAttentionBackward", [
  testCase({
    name: "one-block",
    inputs: { ...tensors({}), gradient: normals([2, 5, 3, 6]) },
    program: backward,
    gradients: [],
    note: "also run by the gradients of decayAttention",
  }),
  testCase({
    name: "three-blocks",
    inputs: { ...tensors({ B: 1, T: 150, H: 1 }), gradient: normals([1, 150, 1, 6]) },
    program: backward,
    gradients: [],
  }),
  testCase({
    name: "symbolic",
    inputs: { ...tensors({ B: "B", T: "T" }), gradient: normals(["B", "T", 3, 6]) },
    program: backward,
    sizes: [
      { B: 2, T: 5 },
      { B: 1, T: 65 },
      { B: 1, T: 1 },
    ],
    tolerance: oneToken,
    gradients: [],
  }),
]);
