import { Dim } from "../dim.ts";
import { apply, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { and } from "./and.ts";
import { argmax } from "./argmax.ts";
import { cast, wide } from "./cast.ts";
import { constant } from "./constant.ts";
import { cumulativeSum } from "./cumulative-sum.ts";
import { dimSize } from "./dim-size.ts";
import { div } from "./div.ts";
import { exp } from "./exp.ts";
import { finite } from "./finite.ts";
import { less } from "./less.ts";
import { lessEqual } from "./less-equal.ts";
import { max } from "./max.ts";
import { maximum } from "./maximum.ts";
import { minimum } from "./minimum.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { or } from "./or.ts";
import { reshape } from "./reshape.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { where } from "./where.ts";

/** What `sampleTokens` takes beside the logits: for each row, how its token is chosen. */
export type SampleTokensInputs = {
  /** [B] float, random numbers in [0, 1). */
  readonly uniform: Tensor;
  /** [B] float >= 0; 0 takes the most likely token. */
  readonly temperature: Tensor;
  /** int32 [B]; only so many of the most likely tokens, 0 for all. */
  readonly topK: Tensor<"int">;
  /** [B] float in (0, 1]; only the most likely tokens that together reach this probability. */
  readonly topP: Tensor;
};

const last = { axes: [-1], keepDims: true };

/** Below this, e^x is zero in float32. */
const leastExponent = -104;

/** Thresholds that are tried at once, and how often: intervals are cut to 2^-32 of what they were. */
const thresholds = 15;
const rounds = 8;

/**
 * The fewest elements, largest first and equal ones by place, whose masses together reach what is wanted; all where even
 * all of them do not. Instead of sorting, a threshold is searched: the sum above it is known for several at once.
 *
 * @param x      [B, V], at most 0
 * @param mass   [B, V] or [], not negative
 * @param wanted [B, 1]
 */
function largest(x: Tensor, mass: Tensor, wanted: Tensor): Tensor<"bool"> {
  const [B = Dim.of(0), V = Dim.of(0)] = x.shape;
  const along = (row: Tensor) => reshape(row, [B, 1, V]);
  const steps = Float32Array.from({ length: thresholds }, (_, index) => (index + 1) / (thresholds + 1));
  const parts = constant(steps, x.dtype) as Tensor;
  const masses = mass.shape.length === 0 ? mass : along(mass);
  let low = sub(neg(max(neg(x), last)), 1);
  let high = max(x, last);
  for (let round = 0; round < rounds; round++) {
    const between = add(low, mul(sub(high, low), parts));
    const above = less(reshape(between, [B, thresholds, 1]), along(x));
    const reaches = lessEqual(wanted, sum(where(above, masses, 0), { axes: [-1] }));
    [low, high] = [max(where(reaches, between, low), last), neg(max(neg(where(reaches, high, between)), last))];
  }
  const above = less(high, x);
  const tied = and(less(low, x), lessEqual(x, high));
  const left = sub(wanted, sum(where(above, mass, 0), last));
  return or(above, and(tied, less(cumulativeSum(where(tied, mass, 0), { axis: -1, exclusive: true }), left)));
}

export const sampleTokensOp = /* @__PURE__ */ defineComposite<
  "sampleTokens",
  { readonly logits: Tensor } & SampleTokensInputs,
  Record<string, never>,
  { value: Tensor<"int"> }
>({
  name: "sampleTokens",
  inputs: ["logits", "uniform", "temperature", "topK", "topP"],
  check({ logits, uniform, temperature, topK, topP }) {
    for (const [name, tensor] of Object.entries({ logits, uniform, temperature, topP }))
      expectKind(name, tensor, "float");
    expectKind("topK", topK, "int");
    const sizes = expectShape("logits", logits, ["B", "V"]);
    for (const [name, tensor] of Object.entries({ uniform, temperature, topK, topP })) {
      expectShape(name, tensor, ["B"], sizes);
    }
  },
  compose({ logits, uniform, temperature, topK, topP }) {
    const x = wide(logits);
    const column = (row: Tensor<"float" | "int">) => reshape(cast(row, x.dtype) as Tensor, [...row.shape, 1]);
    const isGreedy = lessEqual(temperature, 0);
    const scaled = div(sub(x, max(x, last)), column(where(isGreedy, 1, temperature)));
    const weights = exp(scaled);
    const exponents = maximum(scaled, leastExponent);

    const asked = column(topK);
    const size = cast(dimSize(x, -1), x.dtype) as Tensor;
    const first = largest(exponents, constant(1, x.dtype) as Tensor, where(less(0, asked), minimum(asked, size), size));
    const total = sum(where(first, weights, 0), last);
    const part = column(topP);
    // More than there is keeps all of them, also those that rounding would lose.
    const wanted = mul(where(less(part, 1), part, 2), total);
    const kept = where(and(first, largest(exponents, where(first, weights, 0), wanted)), weights, 0);

    const running = cumulativeSum(kept, { axis: -1 });
    const drawn = less(mul(column(uniform), max(running, last)), running);
    const token = where(isGreedy, argmax(x), argmax(cast(and(drawn, less(0, kept)), x.dtype) as Tensor));
    return { value: where(finite(sum(weights, { axes: [-1] })), token, -1) };
  },
  vjp: { reason: "a choice is not a quantity" },
});

/**
 * One token of each row of logits, as `sampleToken` chooses it: filters apply in the order temperature, top-k, top-p,
 * equal logits are ordered by id, and the first id is taken at which the running sum of the weights
 * e^((logit - largest) / temperature) of what is kept exceeds `uniform` of their sum.
 *
 * Sums are those of float32, so a number that is within their rounding of a border between two tokens may take the other;
 * logits whose distances from the largest differ by less than 2^-32 of the distance of the smallest count as equal.
 *
 * @param logits [B, V] float; -Infinity for what is impossible
 * @returns int32 [B]; -1 for a row with NaN, with +Infinity, or with nothing that is possible
 * @throws ShapeError unless logits are [B, V] and all others [B]; DTypeError for a wrong kind
 */
export function sampleTokens(logits: Tensor, choice: SampleTokensInputs): Tensor<"int"> {
  return apply(sampleTokensOp, { logits, ...choice }, {}).value;
}
