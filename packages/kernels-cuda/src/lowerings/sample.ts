// The choice of tokens from logits, by one kernel.

import { sizesOf } from "@sisa/core";
import type { Lowering } from "./index.ts";

export const sampleTokens: Lowering = {
  declines: ({ inputs: { topK: _, ...floats } }) =>
    Object.values(floats).some(({ dtype, shape }) => dtype !== "float32" || sizesOf(shape).includes(0)),
  lower(context) {
    const inputs = ["logits", "uniform", "temperature", "topK", "topP"].map((name) => context.input(name));
    const [rows = 0, vocabulary = 0] = inputs[0]?.sizes ?? [];
    const args = [...inputs, context.output(), vocabulary];
    context.kernel("sampleTokens", rows, 1024, args, 0, { overlaps: true });
  },
};
