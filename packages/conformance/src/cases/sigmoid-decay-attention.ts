import {
  apply,
  ShapeError,
  sigmoidDecayAttention,
  sigmoidDecayAttentionBackwardOp,
  slice,
  type Tensor,
} from "@sisa/core";
import { type Case, casesOf, normals, refusal, testCase, type Values } from "../case.ts";
import { cached, fine, formula, smallGradient, sumsOf, type Traced, tensors } from "./decay-attention.ts";
import { sigmoidsOf } from "./formulas.ts";

/** As many queries as keys, from position 0. */
const program = ({ logDecay, ...inputs }: Traced) => {
  const g = sumsOf(logDecay);
  return sigmoidDecayAttention({ ...inputs, gQuery: g, gKey: g });
};

const square = (
  name: string,
  sizes: Parameters<typeof tensors>[0],
  more: Partial<Case> & { readonly decay?: number } = {},
): Case => {
  const { decay, ...options } = more;
  return {
    ...testCase({
      name,
      inputs: tensors(sizes, decay),
      program,
      expected: (values) => formula(values, 0.5, sigmoidsOf),
      gradientTolerance: smallGradient,
      differences: { elements: 1 },
    }),
    ...options,
  };
};

export const sigmoidDecayAttentionCases = casesOf(
  "sigmoidDecayAttention",
  [
    square("one-block", {}, { differences: {} }),
    square("two-blocks", { B: 1, T: 70, H: 2 }),
    ...[0.001, 1, 20].map((decay) =>
      square(`decay-${decay}`, { B: 1, T: 130, H: 1 }, { decay, differences: fine(decay), slow: true }),
    ),
    square("one-token", { T: 1 }, { differences: "none" }),
    square("no-tokens", { T: 0 }),
    cached("decode", { T: 1, C: 9, starts: [0, 4, 8], lengths: [1, 5, 9] }, sigmoidDecayAttention, sigmoidsOf),
    cached("chunk-over-block", { T: 9, C: 140, starts: [60, 120, 0] }, sigmoidDecayAttention, sigmoidsOf),
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
      name: "later-tokens",
      inputs: tensors({ B: 1, T: 70, H: 2 }),
      program: (inputs) => slice(program(inputs), { axis: 1, end: 20 }),
      expected({ lambda, ...values }) {
        // The same from nothing but the first 20 tokens: in a batch of one they come first.
        const first = Object.entries(values).map(([name, x]) => {
          const shape = x?.shape.with(1, 20) ?? [];
          return [
            name,
            {
              shape,
              data:
                x?.data.slice(
                  0,
                  shape.reduce((a, b) => a * b, 1),
                ) ?? new Float64Array(),
            },
          ];
        });
        return formula({ ...Object.fromEntries(first), lambda } as Values, 0.5, sigmoidsOf);
      },
      gradients: [],
      note: "the bias of a query counts the keys that it sees, not the sequence",
    }),
    testCase({
      name: "perf-train-512",
      inputs: tensors({ B: 8, T: 512, H: 8 }),
      program,
      perf: true,
    }),
  ],
  [
    refusal({
      name: "sums of decay",
      inputs: Object.fromEntries(Object.entries(tensors({})).map(([name, { spec }]) => [name, spec])) as {
        readonly [N in keyof Traced]: ReturnType<typeof tensors>[N]["spec"];
      },
      program: ({ logDecay, ...inputs }) =>
        sigmoidDecayAttention({ ...inputs, gQuery: logDecay, gKey: slice(logDecay as Tensor, { axis: 1, end: 2 }) }),
      error: ShapeError,
      message: "sigmoidDecayAttention: gKey must be [B,C,H] = [2,5,3], got [2,2,3]",
    }),
  ],
);

export const sigmoidDecayAttentionBackwardCases = casesOf("sigmoidDecayAttentionBackward", [
  testCase({
    name: "two-blocks",
    inputs: { ...tensors({ B: 1, T: 70, H: 2 }), gradient: normals([1, 70, 2, 6]) },
    program: ({ logDecay, ...inputs }) => {
      const g = sumsOf(logDecay);
      return apply(sigmoidDecayAttentionBackwardOp, { ...inputs, gQuery: g, gKey: g }, { scale: 0.5 });
    },
    gradients: [],
    note: "also run by the gradients of sigmoidDecayAttention",
  }),
]);
