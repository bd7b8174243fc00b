// Operations that some provider of ONNX Runtime has no kernel for, spelled by operations that every one has. The WebGPU
// provider knows neither float64 nor sine and cosine of recent operator sets, and leaves such nodes to the CPU.

import {
  type AnyTensor,
  add,
  cast,
  constantOp,
  cosOp,
  cumulativePhaseOp,
  cumulativeSum,
  Dim,
  floor,
  floorDivOp,
  type Graph,
  mul,
  type Node,
  rebuild,
  reshape,
  rewrite,
  sinOp,
  sub,
  type Tensor,
} from "@sisa/core";

/**
 * A graph in operations that all providers run.
 *
 * @param maximumLength rows that a running sum is exact for
 */
export function portable(graph: Graph, { maximumLength }: { readonly maximumLength: number }): Graph {
  return rewrite(graph, (node, inputs) => {
    const x = inputs.x as Tensor;
    switch (node.op.name) {
      case cumulativePhaseOp.name:
        return { value: runningPhase(x, inputs.before as Tensor | undefined, maximumLength) };
      case sinOp.name:
        return { value: sineOf(angleOf(node, x)) };
      case cosOp.name:
        return { value: cosineOf(angleOf(node, x)) };
      case floorDivOp.name:
        return wholeQuotient(inputs) ?? rebuild(node, inputs);
      default:
        return rebuild(node, inputs);
    }
  });
}

const turn = 2 * Math.PI;

/** 2 pi in three parts. The first two have 11 bits, so that products with up to 8192 turns are exact in float32. */
const turnParts = [6.28125, 0.001934051513671875, turn - 6.28125 - 0.001934051513671875] as const;

function withoutTurns(x: Tensor): Tensor {
  const turns = floor(mul(x, 1 / turn));
  return turnParts.reduce((rest, part) => sub(rest, mul(turns, part)), x);
}

/**
 * (before + x_1 + ... + x_t) modulo 2 pi in float32. Angles are cut into parts, each a multiple of its own step, so that
 * the sums of all parts but the last are exact, and the last is too small to matter.
 * The steps hold for mean angles up to 4.
 */
function runningPhase(x: Tensor, before: Tensor | undefined, maximumLength: number): Tensor {
  const significand = 2 ** 24;
  const lengthBits = Math.ceil(Math.log2(maximumLength));
  let largest = 4;
  let rest = x;
  const sums: Tensor[] = [];
  // A sum of many rows needs finer parts.
  for (let part = 0; part < (lengthBits > 11 ? 2 : 1); part++) {
    const step = (largest * 2 ** lengthBits) / significand;
    const whole = mul(floor(mul(rest, 1 / step)), step);
    sums.push(cumulativeSum(whole, { axis: 1 }));
    rest = sub(rest, whole);
    largest = step;
  }
  const [coarse = x, ...finer] = sums;
  const small = [...finer, cumulativeSum(rest, { axis: 1 })].reduce((a, b) => add(a, b));
  const sum = add(withoutTurns(coarse), small);
  return withoutTurns(before ? add(sum, reshape(before, before.shape.toSpliced(1, 0, Dim.of(1)))) : sum);
}

/** An angle from 0 to 2 pi. */
function angleOf(node: Node, x: Tensor): Tensor {
  return node.inputs.x?.node.op === cumulativePhaseOp ? x : withoutTurns(x);
}

// sin(h) / h and cos(h) in powers of h^2 for h from -pi/2 to pi/2, by Chebyshev interpolation; off by at most 5e-8.
const sineCoefficients = [
  0.9999999956966753, -0.16666657944392357, 0.008333050086781209, -0.0001980901106718922, 2.6050929580474926e-6,
];
const cosineCoefficients = [
  0.9999999530042417, -0.49999904740140255, 0.0416635722458025, -0.0013853622625121078, 2.3152256721853084e-5,
];

function halfAngle(angle: Tensor) {
  const half = mul(sub(angle, Math.PI), 0.5);
  const square = mul(half, half);
  return { half, square };
}

/** sin(x) = -sin(x - pi) = -2 sin(h) cos(h) */
function sineOf(angle: Tensor): Tensor {
  const { half, square } = halfAngle(angle);
  const sine = mul(half, polynomial(square, sineCoefficients));
  return mul(mul(sine, -2), polynomial(square, cosineCoefficients));
}

/** cos(x) = -cos(x - pi) = 2 sin(h)^2 - 1 */
function cosineOf(angle: Tensor): Tensor {
  const { half, square } = halfAngle(angle);
  const sine = mul(half, polynomial(square, sineCoefficients));
  return sub(mul(mul(sine, sine), 2), 1);
}

function polynomial(x: Tensor, coefficients: readonly number[]): Tensor {
  const [highest = 0, next = 0, ...rest] = coefficients.toReversed();
  return rest.reduce((sum, coefficient) => add(mul(sum, x), coefficient), add(mul(x, highest), next));
}

/** Of whole numbers below 2^24 by a power of two, which float32 divides exactly; undefined for other divisors. */
function wholeQuotient({ a, b }: { readonly [name: string]: AnyTensor }) {
  const divisor = b?.node.op === constantOp ? (b.node.attributes.data as ArrayLike<number>)[0] : undefined;
  if (a === undefined || divisor === undefined || !Number.isInteger(Math.log2(divisor))) return undefined;
  return { value: cast(floor(mul(cast(a, "float32") as Tensor, 1 / divisor)), "int32") };
}
