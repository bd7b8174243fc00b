import {
  apply,
  attention,
  attentionBackwardOp,
  attentionOp,
  DataError,
  DTypeError,
  f32,
  GraphError,
  i32,
  ShapeError,
  type Tensor,
} from "@sisa/core";
import {
  type Case,
  casesOf,
  floatSpec,
  floats,
  given,
  type InputRecipe,
  normals,
  otherFloats,
  refusal,
  testCase,
  type Values,
} from "../case.ts";
import { at, attend, dot } from "./formulas.ts";
import { allInOrder, type Layout, longPages, pageTable, pooled, shortPages } from "./pages.ts";

type Size = number | string;

interface Options extends Partial<Case> {
  readonly more?: { readonly [name: string]: InputRecipe };
  readonly unused?: number | undefined;
}

/** q, k and v: T queries and C keys. */
function tensors({
  B = 2,
  T = 5,
  C = T,
  H = 3,
  D = 4,
  E = D,
}: Partial<Record<"B" | "T" | "C" | "H" | "D" | "E", Size>>) {
  return { q: normals([B, T, H, D]), k: normals([B, C, H, D]), v: normals([B, C, H, E]) };
}

/** The definition, with the optional inputs. */
function formula(values: Values, { scale, causal = true }: { readonly scale: number; readonly causal?: boolean }) {
  const { q, k, v, bias, queryStart, keyLength } = values;
  const [batches = 0, queries = 0, heads = 0, width = 0] = q?.shape ?? [];
  const value = attend([batches, queries, heads], v, (batch, head, i, j) => {
    const position = i + (queryStart ? at(queryStart, batch) : 0);
    if (causal && j > position) return Number.NEGATIVE_INFINITY;
    if (keyLength && j >= at(keyLength, batch)) return Number.NEGATIVE_INFINITY;
    const content =
      scale *
      dot(
        width,
        (d) => at(q, batch, i, head, d),
        (d) => at(k, batch, j, head, d),
      );
    const added = bias?.shape.length === 4 ? at(bias, batch, head, i, j) : bias ? at(bias, i, j) : 0;
    return content + added;
  });
  return { value };
}

/** T queries at the end of each sequence, whose keys lie in pages. */
function paged(name: string, T: number, layout: Layout, options: Options = {}): Case {
  const { more, unused, ...rest } = options;
  const B = layout.lengths.length;
  const starts = layout.lengths.map((length) => length - T);
  return {
    ...testCase({
      name,
      inputs: {
        q: normals([B, T, 3, 4]),
        k: pooled(layout, [3, 4], { unused }),
        v: pooled(layout, [3, 6], { unused }),
        queryStart: given(i32(B), starts),
        pages: pageTable(layout),
        ...more,
      },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(allInOrder(values, ["k", "v"], layout), { scale: 0.5 }),
      gradients: [],
    }),
    ...rest,
  };
}

export const attentionCases = casesOf(
  "attention",
  [
    testCase({
      name: "causal",
      inputs: tensors({}),
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
    }),
    testCase({
      name: "full",
      inputs: tensors({ T: 5, C: 7 }),
      program: (inputs) => attention(inputs, { causal: false }),
      expected: (values) => formula(values, { scale: 0.5, causal: false }),
    }),
    testCase({
      name: "scale",
      inputs: tensors({}),
      program: (inputs) => attention(inputs, { scale: 2 }),
      expected: (values) => formula(values, { scale: 2 }),
    }),
    testCase({
      name: "value-width",
      inputs: tensors({ D: 4, E: 7 }),
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
    }),
    testCase({
      name: "odd-width",
      inputs: tensors({ D: 3, E: 1 }),
      program: (inputs) => attention(inputs),
    }),
    testCase({
      name: "more-keys-than-queries",
      inputs: tensors({ T: 3, C: 8 }),
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      note: "queries begin at position 0",
    }),
    testCase({
      name: "bias",
      inputs: { ...tensors({}), bias: normals([2, 3, 5, 5]) },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
    }),
    testCase({
      name: "bias-broadcast",
      inputs: { ...tensors({}), bias: normals([5, 5]) },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
    }),
    testCase({
      name: "bias-per-head",
      inputs: { ...tensors({}), bias: normals([3, 1, 1]) },
      program: (inputs) => attention(inputs, { causal: false }),
      differences: "none",
      note: "a constant in each row changes nothing, its gradient is zero",
      gradients: ["q", "k", "v"],
    }),
    testCase({
      name: "bias-masks",
      inputs: { ...tensors({ B: 1, T: 3, H: 1 }), bias: given(f32(3, 3), [0, 0, 0, -1e30, 0, 0, 0, -1e30, 0]) },
      program: (inputs) => attention(inputs),
      gradients: ["q", "k", "v"],
    }),
    testCase({
      name: "decode",
      inputs: {
        ...tensors({ B: 3, T: 1, C: 9 }),
        queryStart: given(i32(3), [0, 4, 8]),
        keyLength: given(i32(3), [1, 5, 9]),
      },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      gradients: [],
      note: "one query against a cache, rows of unequal length",
    }),
    testCase({
      name: "chunk",
      inputs: {
        ...tensors({ B: 3, T: 4, C: 9 }),
        queryStart: given(i32(3), [0, 3, 5]),
        keyLength: given(i32(3), [4, 7, 9]),
      },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      gradients: [],
    }),
    testCase({
      name: "query-start-only",
      inputs: { ...tensors({ B: 2, T: 2, C: 9 }), queryStart: given(i32(2), [3, 7]) },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      gradients: [],
    }),
    testCase({
      name: "key-length-only",
      inputs: { ...tensors({ B: 2, T: 4, C: 9 }), keyLength: given(i32(2), [3, 9]) },
      program: (inputs) => attention(inputs, { causal: false }),
      expected: (values) => formula(values, { scale: 0.5, causal: false }),
      gradients: [],
    }),
    testCase({
      name: "no-keys",
      inputs: { ...tensors({ B: 2, T: 2, C: 9 }), keyLength: given(i32(2), [0, 3]) },
      program: (inputs) => apply(attentionOp, inputs, { scale: 0.5, causal: false }),
      expected: (values) => formula(values, { scale: 0.5, causal: false }),
      gradients: [],
      ieee: true,
      note: "a query that sees no key gets zeros; its logSumExp is -Infinity",
    }),
    testCase({
      name: "decode-no-keys",
      inputs: {
        ...tensors({ B: 2, T: 1, C: 9 }),
        queryStart: given(i32(2), [0, 4]),
        keyLength: given(i32(2), [0, 5]),
      },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      gradients: [],
      ieee: true,
    }),
    testCase({
      name: "bias-hides-all",
      inputs: {
        ...tensors({ B: 1, T: 3, H: 1 }),
        bias: given(f32(3, 3), [0, 0, 0, ...new Array<number>(3).fill(Number.NEGATIVE_INFINITY), 0, 0, 0]),
      },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      gradients: [],
      ieee: true,
    }),
    testCase({
      name: "decode-with-bias",
      inputs: {
        ...tensors({ B: 2, T: 1, C: 9 }),
        bias: normals([2, 3, 1, 9]),
        queryStart: given(i32(2), [4, 8]),
        keyLength: given(i32(2), [5, 9]),
      },
      program: (inputs) => attention(inputs),
      expected: (values) => formula(values, { scale: 0.5 }),
      gradients: [],
    }),
    paged("pages-decode", 1, longPages),
    paged("pages-chunk", 9, longPages),
    paged("pages-short", 2, shortPages),
    paged("pages-bias", 2, shortPages, { more: { bias: normals([2, 3, 2, 9]) } }),
    paged("pages-length", 2, shortPages, { more: { keyLength: given(i32(2), [3, 4]) } }),
    paged("pages-unused-rows", 2, longPages, { unused: Number.NaN, ieee: true }),
    testCase({
      name: "pages-symbolic",
      inputs: {
        q: normals(["B", "T", 2, 4]),
        k: normals(["N", 64, 2, 4]),
        v: normals(["N", 64, 2, 4]),
        queryStart: given(i32("B"), [63, 0]),
        pages: given(i32("B", "M"), [2, 0, 1, 3]),
      },
      program: (inputs) => attention(inputs),
      sizes: [
        { B: 2, T: 3, N: 4, M: 2 },
        { B: 1, T: 1, N: 3, M: 1 },
      ],
      gradients: [],
    }),
    testCase({
      name: "pages-no-such-page",
      inputs: {
        ...{ q: normals([1, 1, 2, 4]), k: normals([2, 64, 2, 4]), v: normals([2, 64, 2, 4]) },
        queryStart: given(i32(1), [70]),
        pages: given(i32(1, 2), [1, 2]),
      },
      program: (inputs) => attention(inputs),
      fails: DataError,
    }),
    testCase({
      name: "one-token",
      inputs: tensors({ T: 1 }),
      program: (inputs) => attention(inputs),
      gradientTolerance: { absolute: 1e-6, reason: "zero but for rounding where there is one token" },
      differences: "none",
    }),
    testCase({ name: "no-tokens", inputs: tensors({ T: 0 }), program: (inputs) => attention(inputs) }),
    testCase({ name: "no-batch", inputs: tensors({ B: 0 }), program: (inputs) => attention(inputs) }),
    testCase({
      name: "tiles",
      inputs: tensors({ B: 1, T: 130, H: 2, D: 16, E: 24 }),
      program: (inputs) => attention(inputs),
      differences: { elements: 1 },
      slow: true,
    }),
    testCase({
      name: "large-scores",
      inputs: {
        q: given(f32(1, 3, 1, 2), [100, -100, 50, 50, -100, 100]),
        k: given(f32(1, 3, 1, 2), [100, 100, -100, 100, 100, -100]),
        v: normals([1, 3, 1, 2]),
      },
      program: (inputs) => attention(inputs, { scale: 1 }),
      gradients: [],
      note: "scores of 20,000",
    }),
    testCase({
      name: "perf-prefill-512",
      inputs: tensors({ B: 1, T: 512, H: 8, D: 64 }),
      program: (inputs) => attention(inputs),
      perf: true,
    }),
    testCase({
      name: "perf-decode-2048",
      inputs: {
        ...tensors({ B: 1, T: 1, C: 2048, H: 8, D: 64 }),
        queryStart: given(i32(1), [2047]),
        keyLength: given(i32(1), [2048]),
      },
      program: (inputs) => attention(inputs),
      perf: true,
    }),
    testCase({
      name: "symbolic",
      inputs: tensors({ B: "B", T: "T" }),
      program: (inputs) => attention(inputs),
      gradientTolerance: { absolute: 1e-6, reason: "zero but for rounding where there is one token" },
      sizes: [
        { B: 2, T: 5 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
    }),
    testCase({
      name: "symbolic-cache",
      inputs: {
        ...tensors({ B: "B", T: "T", C: "C" }),
        queryStart: given(i32("B"), [3, 0]),
        keyLength: given(i32("B"), [5, 2]),
      },
      program: (inputs) => attention(inputs),
      sizes: [
        { B: 2, T: 2, C: 8 },
        { B: 1, T: 1, C: 5 },
      ],
      gradients: [],
    }),
    ...otherFloats.map((dtype) =>
      testCase({
        name: dtype,
        inputs: {
          q: normals([1, 5, 2, 4], { dtype }),
          k: normals([1, 5, 2, 4], { dtype }),
          v: normals([1, 5, 2, 4], { dtype }),
        },
        program: (inputs) => attention(inputs),
        ...(dtype === "bfloat16" && {
          tolerance: { nmse: 1e-3, reason: "scores are rounded before they are exponents" },
          gradientTolerance: { nmse: 1e-3, reason: "scores are rounded before they are exponents" },
        }),
        ...(dtype === "float16" && {
          tolerance: { nmse: 1e-5 },
          gradientTolerance: { nmse: 1e-5, reason: "as bfloat16" },
        }),
      }),
    ),
    testCase({
      name: "bfloat16-float32-bias",
      inputs: {
        q: normals([1, 5, 2, 4], { dtype: "bfloat16" }),
        k: normals([1, 5, 2, 4], { dtype: "bfloat16" }),
        v: normals([1, 5, 2, 4], { dtype: "bfloat16" }),
        bias: normals([1, 2, 5, 5]),
      },
      program: (inputs) => attention(inputs),
      gradientTolerance: { nmse: 1e-4, reason: "probabilities are rounded before they are multiplied" },
    }),
    testCase({
      name: "hostile-values",
      inputs: {
        q: floats([1, 3, 1, 2]),
        k: floats([1, 3, 1, 2]),
        v: given(f32(1, 3, 1, 2), [1, 2, Number.POSITIVE_INFINITY, 4, Number.NaN, 6]),
      },
      program: (inputs) => attention(inputs),
      gradients: [],
      ieee: true,
      note: "keys that a query does not see have weight zero, and zero times an infinity is NaN",
    }),
  ],
  [
    refusal({
      name: "keys",
      inputs: { q: f32(2, 5, 3, 4), k: f32(2, 5, 3, 8), v: f32(2, 5, 3, 4) },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: k must be [B,C,H,D] = [2,C,3,4], got [2,5,3,8]",
    }),
    refusal({
      name: "values",
      inputs: { q: f32(2, 5, 3, 4), k: f32(2, 6, 3, 4), v: f32(2, 5, 3, 4) },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: v must be [B,C,H,E] = [2,6,3,E], got [2,5,3,4]",
    }),
    refusal({
      name: "rank",
      inputs: { q: f32(5, 3, 4), k: f32(5, 3, 4), v: f32(5, 3, 4) },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: q must be [B,T,H,D], got [5,3,4]",
    }),
    refusal({
      name: "pages without a start",
      inputs: { q: f32(2, 1, 3, 4), k: f32(5, 8, 3, 4), v: f32(5, 8, 3, 4), pages: i32(2, 4) },
      program: (inputs) => attention(inputs),
      error: GraphError,
      message: "attention: pages are read up to each query: pass queryStart, and be causal",
    }),
    refusal({
      name: "pages of other sizes",
      inputs: {
        ...{ q: f32(2, 1, 3, 4), k: f32(5, 8, 3, 4), v: f32(5, 4, 3, 4) },
        ...{ queryStart: i32(2), pages: i32(2, 4) },
      },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: v must be [N,P,H,E] = [5,8,3,E], got [5,4,3,4]",
    }),
    refusal({
      name: "width without scale",
      inputs: { q: f32(2, 5, 3, "D"), k: f32(2, 5, 3, "D"), v: f32(2, 5, 3, 4) },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: expected a fixed width D for the default scale, got q [2,5,3,D]; pass scale",
    }),
    refusal({
      name: "bias",
      inputs: { q: f32(1, 5, 3, 4), k: f32(1, 5, 3, 4), v: f32(1, 5, 3, 4), bias: f32(2, 1, 1, 1) },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: bias must broadcast to [B,H,T,C] = [1,3,5,5], got [2,1,1,1]",
    }),
    refusal({
      name: "float start",
      inputs: { q: f32(2, 1, 3, 4), k: f32(2, 5, 3, 4), v: f32(2, 5, 3, 4), queryStart: f32(2) },
      program: ({ queryStart, ...inputs }) =>
        attention({ ...inputs, queryStart: queryStart as unknown as Tensor<"int"> }),
      error: DTypeError,
      message: "attention: queryStart must be int, got float32[2]",
    }),
    refusal({
      name: "float length",
      inputs: { q: f32(2, 1, 3, 4), k: f32(2, 5, 3, 4), v: f32(2, 5, 3, 4), keyLength: f32(2) },
      program: ({ keyLength, ...inputs }) => attention({ ...inputs, keyLength: keyLength as unknown as Tensor<"int"> }),
      error: DTypeError,
      message: "attention: keyLength must be int, got float32[2]",
    }),
    refusal({
      name: "length",
      inputs: { q: f32(2, 1, 3, 4), k: f32(2, 5, 3, 4), v: f32(2, 5, 3, 4), keyLength: i32() },
      program: (inputs) => attention(inputs),
      error: ShapeError,
      message: "attention: keyLength must be [B] = [2], got []",
    }),
    refusal({
      name: "integers",
      inputs: { q: i32(2, 1, 3, 4), k: i32(2, 5, 3, 4), v: i32(2, 5, 3, 4) },
      program: ({ q, k, v }) =>
        attention({ q: q as unknown as Tensor, k: k as unknown as Tensor, v: v as unknown as Tensor }),
      error: DTypeError,
      message: "attention: q must be float, got int32[2,1,3,4]",
    }),
    refusal({
      name: "widths",
      inputs: { q: f32(2, 1, 3, 4), k: floatSpec("bfloat16", [2, 5, 3, 4]), v: f32(2, 5, 3, 4) },
      program: (inputs) => attention(inputs),
      error: DTypeError,
      message: "attention: dtypes differ, got float32[2,1,3,4] and bfloat16[2,5,3,4]; cast one of them",
    }),
  ],
);

export const attentionBackwardCases = casesOf("attentionBackward", [
  ...[true, false].map((causal) =>
    testCase({
      name: causal ? "causal" : "full",
      inputs: { ...tensors({ E: 6 }), gradient: normals([2, 5, 3, 6]) },
      program: ({ gradient, ...inputs }) => {
        const forward = apply(attentionOp, inputs, { scale: 0.5, causal });
        return apply(attentionBackwardOp, { ...inputs, ...forward, gradient }, { scale: 0.5, causal });
      },
      gradients: [],
      note: "also run by the gradients of attention",
    }),
  ),
  testCase({
    name: "bias",
    inputs: { ...tensors({}), bias: normals([5, 5]), gradient: normals([2, 5, 3, 4]) },
    program: ({ gradient, ...inputs }) => {
      const forward = apply(attentionOp, inputs, { scale: 0.5, causal: true });
      return apply(attentionBackwardOp, { ...inputs, ...forward, gradient }, { scale: 0.5, causal: true });
    },
    gradients: [],
  }),
  testCase({
    name: "symbolic",
    inputs: { ...tensors({ B: "B", T: "T" }), gradient: normals(["B", "T", 3, 4]) },
    program: ({ gradient, ...inputs }) => {
      const forward = apply(attentionOp, inputs, { scale: 0.5, causal: true });
      return apply(attentionBackwardOp, { ...inputs, ...forward, gradient }, { scale: 0.5, causal: true });
    },
    sizes: [
      { B: 2, T: 5 },
      { B: 1, T: 1 },
    ],
    tolerance: { absolute: 1e-6, reason: "zero but for rounding where there is one token" },
    gradients: [],
  }),
]);
