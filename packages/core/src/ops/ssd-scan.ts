import { Dim, sameShape, shapeText } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { chunk } from "./chunk.ts";
import { cumulativeSum } from "./cumulative-sum.ts";
import { exp } from "./exp.ts";
import { iota } from "./iota.ts";
import { less } from "./less.ts";
import { lessEqual } from "./less-equal.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { sub } from "./sub.ts";
import { sum } from "./sum.ts";
import { transpose } from "./transpose.ts";
import { unchunk } from "./unchunk.ts";
import { where } from "./where.ts";

/** Steps per chunk: within one, all pairs are products of matrices; from one to the next, states are handed on. */
export const ssdChunk = 64;

/** What is written, read and forgotten at every step. */
export interface SsdScanInputs {
  readonly [name: string]: Tensor | undefined;
  /** [B,T,R,H,P] what is written; R is the rank, 1 where a step writes one pair of vectors */
  readonly x: Tensor;
  /** [B,T,R,G,N] where it is written; G divides H, and neighbouring heads share a group */
  readonly b: Tensor;
  /** [B,T,R,G,N] where it is read */
  readonly c: Tensor;
  /** [B,T,H] log of the decay of the state at each step, <= 0 */
  readonly logDecay: Tensor;
  /** [B,H,N,P] state before the first step; default zeros */
  readonly state?: Tensor | undefined;
}

interface SsdScanAttributes {
  readonly [name: string]: unknown;
  readonly strict: boolean;
}

type SsdScanOutputs = { value: Tensor; state: Tensor };

/**
 * Sizes by the names of the documentation, with K heads per group, Q steps per chunk, n chunks and L = Q R rows per
 * chunk.
 */
interface Sizes {
  readonly B: Dim;
  readonly T: Dim;
  readonly R: number;
  readonly G: number;
  readonly K: number;
  readonly N: Dim;
  readonly P: Dim;
  readonly Q: number;
  readonly n: Dim;
  readonly L: number;
}

function sizesOf({ x, b }: Pick<SsdScanInputs, "x" | "b">): Sizes {
  const [B = Dim.of(0), T = Dim.of(0), R = Dim.of(0), H = Dim.of(0), P = Dim.of(0)] = x.shape;
  const [, , , groups = Dim.of(0), N = Dim.of(0)] = b.shape;
  const rank = R.value ?? 1;
  const G = groups.value ?? 1;
  const Q = Math.max(1, Math.min(T.value ?? ssdChunk, ssdChunk));
  return { B, T, R: rank, G, K: (H.value ?? G) / G, N, P, Q, n: T.ceilDiv(Q), L: Q * rank };
}

/** A transpose; where only axes of size 1 move, nothing has to. */
function permute(x: Tensor, permutation: readonly number[]): Tensor {
  const shape = permutation.map((axis) => x.shape[axis] ?? Dim.of(1));
  const moving = permutation.filter((axis) => !x.shape[axis]?.equals(1));
  const isOrdered = moving.every((axis, index) => index === 0 || axis > (moving[index - 1] ?? 0));
  return isOrdered ? reshape(x, shape) : transpose(x, permutation);
}

/** [B,T,R,G*K,E] to [B,G,n,L,K,E]. */
function toColumns(x: Tensor, { B, R, G, K, Q, n, L }: Sizes): Tensor {
  const E = x.shape[4] ?? Dim.of(1);
  const rows = reshape(chunk(x, { axis: 1, size: Q }), [B, n, Q * R, G, K, E]);
  return permute(reshape(rows, [B, n, L, G, K, E]), [0, 3, 1, 2, 4, 5]);
}

/** The inverse of `toColumns`: [B,G,n,L,K,E] to [B,T,R,G*K,E]. */
function fromColumns(x: Tensor, { B, T, R, G, K, Q, n }: Sizes): Tensor {
  const E = x.shape[5] ?? Dim.of(1);
  return unchunk(reshape(permute(x, [0, 2, 3, 1, 4, 5]), [B, n, Q, R, G * K, E]), { axis: 1, length: T });
}

/** [B,G,n,L,K,E] to [B,G,n,K,L,E], or back. */
function swapHeadsAndRows(x: Tensor): Tensor {
  return permute(x, [0, 1, 2, 4, 3, 5]);
}

/** [B,G,n,L,K,P] to [B,G,n,L,K*P]: the heads of a group side by side, as columns of one matrix. */
function flat(x: Tensor): Tensor {
  const [K = Dim.of(1), P = Dim.of(1)] = x.shape.slice(4);
  return reshape(x, [...x.shape.slice(0, 4), K.times(P)]);
}

/** [B,G,n,K,Q] of steps to [B,G,n,L,K,1] of rows. */
function perRow(factor: Tensor, { B, n, G, K, Q, R, L }: Sizes): Tensor {
  const steps = reshape(permute(factor, [0, 1, 2, 4, 3]), [B, G, n, Q, 1, K, 1]);
  return reshape(R === 1 ? steps : broadcastTo(steps, [B, G, n, Q, R, K, 1]), [B, G, n, L, K, 1]);
}

/** [B,G,n,L,K] of rows, summed to [B,G,n,K,Q] of steps. */
function perStep(x: Tensor, { B, n, G, K, Q, R }: Sizes): Tensor {
  const steps = R === 1 ? reshape(x, [B, G, n, Q, K]) : sum(reshape(x, [B, G, n, Q, R, K]), { axes: [4] });
  return permute(steps, [0, 1, 2, 4, 3]);
}

/** [B,G,n,N,K*P] of chunks to [B,G,K,n,N*P], so that states of all chunks are rows of one matrix. */
function chunksToRows(x: Tensor, { B, n, G, K, N, P }: Sizes): Tensor {
  const heads = permute(reshape(x, [B, G, n, N, K, P]), [0, 1, 4, 2, 3, 5]);
  return reshape(heads, [B, G, K, n, N.times(P)]);
}

/** The inverse of `chunksToRows`. */
function rowsToChunks(x: Tensor, { B, n, G, K, N, P }: Sizes): Tensor {
  const chunks = permute(reshape(x, [B, G, K, n, N, P]), [0, 1, 3, 4, 2, 5]);
  return reshape(chunks, [B, G, n, N, P.times(K)]);
}

/** Log of a factor of zero, finite for backends that know no infinity. */
const nothing = -3e38;

/** What forward and backward share. */
function scan({ x, b, c, logDecay, state }: SsdScanInputs, { strict }: SsdScanAttributes) {
  const sizes = sizesOf({ x, b });
  const { B, G, K, N, P, Q, n, L } = sizes;
  const columns = toColumns(x, sizes); // [B,G,n,L,K,P]
  const heads = swapHeadsAndRows(columns); // [B,G,n,K,L,P]
  const group = (rows: Tensor) => {
    const [, , , , width = Dim.of(1)] = rows.shape;
    const cut = reshape(chunk(rows, { axis: 1, size: Q }), [B, n, L, G, width]);
    return permute(cut, [0, 3, 1, 2, 4]); // [B,G,n,L,N]
  };
  const [write, read] = [group(b), group(c)];

  // Sums of log decay begin anew in every chunk, so that none is long. Steps after the end decay by nothing.
  const steps = permute(reshape(chunk(logDecay, { axis: 1, size: Q }), [B, n, Q, G, K]), [0, 3, 1, 4, 2]);
  const g = cumulativeSum(steps, { axis: -1 }); // [B,G,n,K,Q]
  const total = slice(g, { axis: -1, start: Q - 1 }); // [B,G,n,K,1]
  const sinceStart = perRow(exp(g), sizes);
  const untilEnd = perRow(exp(sub(total, g)), sizes);

  // Within a chunk.
  const step = reshape(iota(Q), [Q, 1]);
  const earlier = less(iota(Q), step); // [Q,Q]
  const seen = strict ? earlier : lessEqual(iota(Q), step);
  const difference = sub(reshape(g, [B, G, n, K, Q, 1]), reshape(g, [B, G, n, K, 1, Q]));
  const pairs = pairsOfRows(exp(where(seen, difference, nothing)), sizes);
  const products = reshape(matmul(read, write, { transposeB: true }), [B, G, n, 1, L, L]);
  const scores = mul(products, pairs); // [B,G,n,K,L,L]

  // From chunk to chunk: the state before chunk i is what chunks j < i wrote, decayed by the chunks between.
  const kept = mul(columns, untilEnd);
  const written = chunksToRows(matmul(write, flat(kept), { transposeA: true }), sizes);
  const totals = reshape(permute(total, [0, 1, 3, 4, 2]), [B, G, K, 1, n]);
  const place = reshape(iota(n), [n, 1]);
  const between = cumulativeSum(where(less(iota(n), place), totals, 0), { axis: -1, reverse: true, exclusive: true });
  const carry = exp(where(less(iota(n), place), between, nothing)); // [B,G,K,n,n]
  const carried = matmul(carry, written); // [B,G,K,n,N*P]
  const initial = state && reshape(state, [B, G, K, 1, N.times(P)]);
  const sinceFirst = exp(cumulativeSum(totals, { axis: -1, exclusive: true }));
  const before = initial ? add(carried, mul(reshape(sinceFirst, [B, G, K, n, 1]), initial)) : carried;
  const isAlone = n.equals(1) && initial === undefined;
  return {
    sizes,
    ...{ columns, heads, write, read, g, total, totals, sinceStart, untilEnd, earlier, pairs, products, scores },
    ...{ kept, written, carry, before, initial, isAlone },
  };
}

/** [.., Q,Q] of steps to [.., L,L] of rows. */
function pairsOfRows(pairs: Tensor, { B, n, G, K, Q, R, L }: Sizes): Tensor {
  if (R === 1) return pairs;
  const spread = broadcastTo(reshape(pairs, [B, G, n, K, Q, 1, Q, 1]), [B, G, n, K, Q, R, Q, R]);
  return reshape(spread, [B, G, n, K, L, L]);
}

export const ssdScanOp: DefinedOp<"ssdScan", SsdScanInputs, SsdScanAttributes, SsdScanOutputs> =
  /* @__PURE__ */ defineComposite({
    name: "ssdScan",
    inputs: ["x", "b", "c", "logDecay", "state?"],
    check({ x, b, c, logDecay, state }) {
      for (const [name, tensor] of Object.entries({ x, b, c, logDecay })) expectKind(name, tensor, "float");
      const sizes = expectShape("x", x, ["B", "T", "R", "H", "P"]);
      const groups = expectShape("b", b, ["B", "T", "R", "G", "N"], sizes);
      expectShape("c", c, ["B", "T", "R", "G", "N"], groups);
      expectShape("logDecay", logDecay, ["B", "T", "H"], sizes);
      if (state) expectShape("state", state, ["B", "H", "N", "P"], groups);
      const [R, H, G] = [sizes.R?.value, sizes.H?.value, groups.G?.value];
      if (!R || !H || !G || H % G !== 0) {
        const found = `R ${sizes.R}, H ${sizes.H}, G ${groups.G}`;
        throw new ShapeError(`R, H and G must be fixed numbers, and G divide H; got ${found}`);
      }
    },
    compose(inputs, attributes) {
      const parts = scan(inputs, attributes);
      const { sizes, scores, heads, read, before, sinceStart, totals, written, initial, isAlone } = parts;
      const { B, G, K, N, P, n, L } = sizes;
      const within = swapHeadsAndRows(matmul(scores, heads)); // [B,G,n,L,K,P]
      const fromBefore = () => reshape(matmul(read, rowsToChunks(before, sizes)), [B, G, n, L, K, P]);
      const value = isAlone ? within : add(within, mul(fromBefore(), sinceStart));
      const untilLast = exp(cumulativeSum(totals, { axis: -1, reverse: true, exclusive: true })); // [B,G,K,1,n]
      const last = matmul(untilLast, written);
      const all = exp(sum(totals, { axes: [-1], keepDims: true }));
      const state = initial ? add(last, mul(all, initial)) : last;
      return { value: fromColumns(value, sizes), state: reshape(state, [B, G * K, N, P]) };
    },
    vjp({ inputs, attributes, gradients }) {
      if (inputs.state || gradients.state) {
        throw new GraphError("ssdScan: has no gradient where it continues from a state or hands one on");
      }
      if (gradients.value === undefined) return {};
      const { x, b, c, logDecay } = inputs;
      return apply(ssdScanBackwardOp, { x, b, c, logDecay, gradient: gradients.value }, attributes);
    },
    flops({ x, b }) {
      const { B, T, R, G, K, N, P, Q } = sizesOf({ x, b });
      const rows = B.times(T).times(R);
      const pairs = rows.times(Q * R).times(N.times(G).plus(P.times(G * K)));
      return pairs
        .plus(
          rows
            .times(G * K)
            .times(N)
            .times(P)
            .times(2),
        )
        .times(2);
    },
    source: "Dao & Gu 2024, arXiv:2405.21060, section 6",
  });

interface BackwardInputs extends SsdScanInputs {
  readonly state?: undefined;
  readonly gradient: Tensor;
}

/** Gradients of ssdScan by x, b, c and logDecay, each of its input's shape, without a state before or after. */
export const ssdScanBackwardOp: DefinedOp<
  "ssdScanBackward",
  BackwardInputs,
  SsdScanAttributes,
  { x: Tensor; b: Tensor; c: Tensor; logDecay: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "ssdScanBackward",
  inputs: ["x", "b", "c", "logDecay", "gradient"],
  check({ x, gradient }) {
    if (!sameShape(x.shape, gradient.shape)) {
      throw new ShapeError(
        `gradient must have the shape of x, ${shapeText(x.shape)}, got ${shapeText(gradient.shape)}`,
      );
    }
  },
  compose({ x, b, c, logDecay, gradient }, attributes) {
    const parts = scan({ x, b, c, logDecay }, attributes);
    const { sizes, columns, heads, write, read, earlier, pairs, products, scores, isAlone } = parts;
    const { B, G, K, Q, n, L } = sizes;
    const dColumns = toColumns(gradient, sizes); // [B,G,n,L,K,P]
    const dHeads = swapHeadsAndRows(dColumns);

    // Within a chunk.
    const weights = mul(matmul(dHeads, heads, { transposeB: true }), pairs); // [B,G,n,K,L,L]
    const dxWithin = swapHeadsAndRows(matmul(scores, dHeads, { transposeA: true }));
    const shared = K === 1 ? reshape(weights, [B, G, n, L, L]) : sum(weights, { axes: [3] });
    const dReadWithin = matmul(shared, write);
    const dWriteWithin = matmul(shared, read, { transposeA: true });
    // d score / d log decay of a step = score for all pairs that span the step; a pair of one step spans none.
    const spans = mul(weights, products);
    const bySteps = sizes.R === 1 ? spans : sum(reshape(spans, [B, G, n, K, Q, sizes.R, Q, sizes.R]), { axes: [5, 7] });
    const ofPairs = attributes.strict ? bySteps : where(earlier, bySteps, 0); // [B,G,n,K,Q,Q]
    const pairsSpan = sub(sum(ofPairs, { axes: [5] }), sum(ofPairs, { axes: [4] }));

    const ofGroups = (rows: Tensor) => fromColumns(reshape(rows, [B, G, n, L, 1, sizes.N]), { ...sizes, K: 1 });
    const ofSteps = (decay: Tensor) => {
      const steps = reshape(permute(decay, [0, 2, 4, 1, 3]), [B, n, Q, G * K]);
      return unchunk(steps, { axis: 1, length: sizes.T });
    };
    if (isAlone) {
      return {
        x: fromColumns(dxWithin, sizes),
        b: ofGroups(dWriteWithin),
        c: ofGroups(dReadWithin),
        logDecay: ofSteps(cumulativeSum(pairsSpan, { axis: -1, reverse: true })),
      };
    }

    // From chunk to chunk.
    const { before, carry, kept, sinceStart, untilEnd, total } = parts;
    const states = rowsToChunks(before, sizes); // [B,G,n,N,K*P]
    const dRead = mul(dColumns, sinceStart);
    const dReadBefore = matmul(flat(dRead), states, { transposeB: true });
    const fromBefore = reshape(matmul(read, states), columns.shape);
    const readSpan = perStep(sum(mul(dRead, fromBefore), { axes: [5] }), sizes);
    const dBefore = chunksToRows(matmul(read, flat(dRead), { transposeA: true }), sizes);
    const dWritten = matmul(carry, dBefore, { transposeA: true }); // [B,G,K,n,N*P]
    const dStates = rowsToChunks(dWritten, sizes);
    const dxAfter = mul(reshape(matmul(write, dStates), columns.shape), untilEnd);
    const dWriteAfter = matmul(flat(kept), dStates, { transposeB: true });
    const writeSpan = perStep(sum(mul(columns, dxAfter), { axes: [5] }), sizes);
    // States that pass a whole chunk.
    const passed = permute(sum(mul(before, dWritten), { axes: [4], keepDims: true }), [0, 1, 3, 2, 4]);
    const passing = mul(exp(total), passed); // [B,G,n,K,1]

    // The decay of a step is passed by reads after it in its chunk, by writes before it, and by what passes the chunk:
    // no sum is longer than a chunk.
    const later = cumulativeSum(add(pairsSpan, readSpan), { axis: -1, reverse: true });
    const sooner = cumulativeSum(writeSpan, { axis: -1, exclusive: true });
    return {
      x: fromColumns(add(dxWithin, dxAfter), sizes),
      b: ofGroups(add(dWriteWithin, dWriteAfter)),
      c: ofGroups(add(dReadWithin, dReadBefore)),
      logDecay: ofSteps(add(add(later, sooner), passing)),
    };
  },
  flops({ x, b }) {
    const { B, T, R, G, K, N, P, Q } = sizesOf({ x, b });
    const rows = B.times(T).times(R);
    const pairs = rows.times(Q * R).times(N.times(3 * G).plus(P.times(2 * G * K)));
    return pairs
      .plus(
        rows
          .times(G * K)
          .times(N)
          .times(P)
          .times(6),
      )
      .times(2);
  },
});

/**
 * State space scan with a scalar decay per head (state space duality), by chunks and products of matrices.
 *
 *     h_t = exp(logDecay_t) h_{t-1} + sum_r b_{t,r} x_{t,r}^T        value_{t,r} = c_{t,r}^T h_t
 *
 * | here | Mamba-2 |
 * |---|---|
 * | x | dt x |
 * | logDecay | dt A |
 * | R | 1; the rank of Mamba-3 MIMO |
 *
 * Exact at any length: decays are sums of at most a chunk, or of totals of chunks, never differences of long sums.
 *
 * @param inputs as in SsdScanInputs
 * @param options.strict what a step writes is not read by the step itself; default false
 * @returns value [B,T,R,H,P], and the state after the last step [B,H,N,P]
 * @throws ShapeError where sizes differ, or R, H or G is not bound; DTypeError unless all are floats
 * Source: Dao & Gu 2024, arXiv:2405.21060, section 6.
 */
export function ssdScan(
  inputs: SsdScanInputs,
  options: { readonly strict?: boolean } = {},
): { readonly value: Tensor; readonly state: Tensor } {
  const { strict = false } = options;
  return apply(ssdScanOp, inputs, { strict });
}
