// Operations of decoding that only this backend has: several of the core's in one kernel.

import {
  type AnyTensor,
  add,
  apply,
  attentionOp,
  cacheWrite,
  decayAttentionOp,
  defineComposite,
  gather,
  iota,
  less,
  matmul,
  maximum,
  minimum,
  neg,
  reshape,
  rmsNorm,
  rope,
  sizesOf,
  softplus,
  ssmPrepare,
  sub,
  swiglu,
  type Tensor,
  takeRow,
  where,
} from "@sisa/core";

type Named = { readonly [name: string]: AnyTensor };

interface NormInputs extends Named {
  /** [..., M] */
  readonly x: Tensor;
  /** [M], of the norm */
  readonly norm: Tensor;
}

/**
 * Products of a norm of x with one matrix, or with two, of which the second gives float32.
 * `row` int32 [B] says which of the rows of x [B,T,M] are taken, the first for less than 0 where `isFromZero`; all where
 * it is left out.
 */
export const normProductOp = /* @__PURE__ */ defineComposite<
  "cuda/normProduct",
  NormInputs & { readonly weight: Tensor; readonly wideWeight?: Tensor; readonly row?: Tensor<"int"> },
  { readonly epsilon: number; readonly dtype: "float32" | "bfloat16"; readonly isFromZero?: boolean },
  { value: Tensor; wide?: Tensor }
>({
  name: "cuda/normProduct",
  inputs: ["x", "norm", "weight", "wideWeight?", "row?"],
  compose({ x, norm, weight, wideWeight, row }, { epsilon, dtype, isFromZero }) {
    const normed = rmsNorm(x, norm, { epsilon });
    const h = row ? takeRow(normed, isFromZero ? maximum<"int">(row, 0) : row) : normed;
    const value = matmul(h, weight, { transposeB: true, dtype: dtype as "float32" });
    return wideWeight ? { value, wide: matmul(h, wideWeight, { transposeB: true, dtype: "float32" }) } : { value };
  },
});

/** A gated feed-forward up to its gate: swiglu of two products of a norm of x. */
export const normGatesOp = /* @__PURE__ */ defineComposite<
  "cuda/normGates",
  NormInputs & { readonly gate: Tensor; readonly up: Tensor },
  { readonly epsilon: number }
>({
  name: "cuda/normGates",
  inputs: ["x", "norm", "gate", "up"],
  compose({ x, norm, gate, up }, { epsilon }) {
    const h = rmsNorm(x, norm, { epsilon });
    const product = (weight: Tensor) => matmul(h, weight, { transposeB: true });
    return { value: swiglu(product(gate), product(up)) };
  },
});

export interface DecodeStepInputs extends Named {
  /** [B,T,H,D] before rotation */
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  /** int32 [B], position of the first token */
  readonly start: Tensor<"int">;
  /** int32 [B,M]; caches are pools of pages [N,P,...] where it is given */
  readonly pages?: Tensor<"int">;
  /** Caches [B,C,H,D] */
  readonly keys: Tensor;
  readonly values: Tensor;
  /** [P,D/2] by position; none where queries and keys are not rotated */
  readonly cosine?: Tensor;
  readonly sine?: Tensor;
}

/** What SISA has besides; all or none. */
export interface DecodeStepStates extends Named {
  /** [B,T,H,S] before rotation */
  readonly c: Tensor;
  readonly b: Tensor;
  /** [B,T,H] and [H]; the decay is -softplus(strength + bias) */
  readonly strength: Tensor;
  readonly bias: Tensor;
  /** [B,T,H,S/2] */
  readonly phase: Tensor;
  /** [H] */
  readonly lambda: Tensor;
  /** Caches [B,C,H,S], [B,C,H], [B,C,H,S/2] */
  readonly importances: Tensor;
  readonly decays: Tensor;
  readonly phases: Tensor;
}

/** The mixer of one token or several, between its projections: attention, or SISA, to a cache, with the caches as it leaves them. */
export const decodeStepOp = /* @__PURE__ */ defineComposite<
  "cuda/decodeStep",
  DecodeStepInputs & Partial<DecodeStepStates>,
  { readonly scale: number },
  Named
>({
  name: "cuda/decodeStep",
  inputs: [
    ...["q", "k", "v", "start", "pages?", "keys", "values", "cosine?", "sine?"],
    ...["c?", "b?", "strength?", "bias?", "phase?", "lambda?", "importances?", "decays?", "phases?"],
  ],
  compose(inputs, { scale }) {
    const { q: q0, k: k0, v, start, pages, keys, values, cosine, sine } = inputs;
    const [B = 1, T = 1] = q0.shape;
    const rotated = (x: Tensor) => {
      if (!cosine || !sine) return x;
      const [rows = 0, half = 0] = sizesOf(cosine.shape);
      const positions = minimum<"int">(add<"int">(iota(T), reshape(start, [B, 1])), rows - 1);
      const at = (table: Tensor) => reshape(gather(table, positions), [B, T, 1, half]);
      return rope(x, at(cosine), at(sine));
    };
    const write = (cache: Tensor, row: Tensor) => cacheWrite(cache, row, start, pages);
    const [q, k] = [rotated(q0), write(keys, rotated(k0))];
    const written = { keys: k, values: write(values, v) };
    const places = { queryStart: start, pages };
    if (!hasStates(inputs)) {
      const { value } = apply(attentionOp, { q, k, v: written.values, ...places }, { scale, causal: true });
      return { value, ...written };
    }
    const { c, b, strength, bias, phase, lambda, importances, decays, phases } = inputs;
    const before = (cache: Tensor) => {
      const row = takeRow(cache, maximum<"int">(sub<"int">(start, 1), 0), pages);
      const ones = row.shape.slice(1).map(() => 1);
      return where(reshape(less<"int">(start, 1), [B, ...ones]), 0, row);
    };
    const logDecay = neg(softplus(add(strength, bias)));
    const states = { c, b, logDecay, phase, gBefore: before(decays), phaseBefore: before(phases), start };
    const { cRotated, bRotated, g, phi } = ssmPrepare(states);
    const kept = {
      importances: write(importances, bRotated),
      decays: write(decays, g),
      phases: write(phases, phi),
    };
    const attended = { q, k, v: written.values, cRotated, bRotated: kept.importances, gQuery: g, gKey: kept.decays };
    const { value } = apply(decayAttentionOp, { ...attended, lambda, ...places }, { scale });
    return { value, ...written, ...kept };
  },
});

function hasStates(inputs: Partial<DecodeStepStates>): inputs is DecodeStepStates {
  return inputs.c !== undefined;
}
