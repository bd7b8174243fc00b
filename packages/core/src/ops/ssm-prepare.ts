import { Dim } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { blockCumulativeSum } from "./block-cumulative-sum.ts";
import { broadcastTo } from "./broadcast-to.ts";
import { cast } from "./cast.ts";
import { constant } from "./constant.ts";
import { cos } from "./cos.ts";
import { cumulativePhase } from "./cumulative-phase.ts";
import { cumulativeSum } from "./cumulative-sum.ts";
import { neg } from "./neg.ts";
import { rope } from "./rope.ts";
import { crossOfPairs, rotate } from "./rotate.ts";
import { sin } from "./sin.ts";

/** Sums of decay begin anew at every position that is a multiple of this, so that none is long. */
export const decayBlock = 64;

/** State channels before their rotation, with the decays and phases of every token. */
export interface SsmPrepareInputs {
  readonly [name: string]: Tensor | Tensor<"int"> | undefined;
  /** [B,T,H,S] read vectors */
  readonly c: Tensor;
  /** [B,T,H,S] write vectors */
  readonly b: Tensor;
  /** [B,T,H] log alpha_t <= 0, float32 */
  readonly logDecay: Tensor;
  /** [B,T,H,S/2] theta_t in radians, float32 */
  readonly phase: Tensor;
  /** [B,H] g at the position before `start`; with `phaseBefore` and `start`, or none of them */
  readonly gBefore?: Tensor | undefined;
  /** [B,H,S/2] Phi at the position before `start` */
  readonly phaseBefore?: Tensor | undefined;
  /** int32 [B] position of the first row; default zeros */
  readonly start?: Tensor<"int"> | undefined;
}

/** State channels rotated by the phase so far, and the decay and phase so far. */
export type SsmPrepareOutputs = {
  /** [B,T,H,S] R(Phi_t) c_t */
  cRotated: Tensor;
  /** [B,T,H,S] R(Phi_t) b_t */
  bRotated: Tensor;
  /** [B,T,H] sum of log decay within the token's block of `decayBlock` positions */
  g: Tensor;
  /** [B,T,H,S/2] Phi_t in radians, from 0 to 2 pi */
  phi: Tensor;
};

export const ssmPrepareOp: DefinedOp<
  "ssmPrepare",
  SsmPrepareInputs,
  Record<string, never>,
  SsmPrepareOutputs
> = /* @__PURE__ */ defineComposite({
  name: "ssmPrepare",
  inputs: ["c", "b", "logDecay", "phase", "gBefore?", "phaseBefore?", "start?"],
  check({ c, b, logDecay, phase, gBefore, phaseBefore, start }) {
    for (const [name, tensor] of Object.entries({ c, b, logDecay, phase })) expectKind(name, tensor, "float");
    if (start) expectKind("start", start, "int");
    const sizes = expectShape("c", c, ["B", "T", "H", "S"]);
    expectShape("b", b, ["B", "T", "H", "S"], sizes);
    expectShape("logDecay", logDecay, ["B", "T", "H"], sizes);
    const half = (sizes.S ?? Dim.of(0)).ceilDiv(2);
    if (!half.times(2).equals(sizes.S ?? 0)) throw new ShapeError(`S must be even, got ${sizes.S}`);
    expectShape("phase", phase, ["B", "T", "H", "S/2"], { ...sizes, "S/2": half });
    if (gBefore) expectShape("gBefore", gBefore, ["B", "H"], sizes);
    if (phaseBefore) expectShape("phaseBefore", phaseBefore, ["B", "H", "S/2"], { ...sizes, "S/2": half });
    if (start) expectShape("start", start, ["B"], sizes);
    if ((gBefore && 1) !== (phaseBefore && 1) || (gBefore && 1) !== (start && 1)) {
      throw new ShapeError("gBefore, phaseBefore and start go together; pass all or none");
    }
  },
  compose({ c, b, logDecay, phase, gBefore, phaseBefore, start }) {
    const g = blockCumulativeSum({ x: logDecay, before: gBefore, start }, { size: decayBlock });
    const phi = cumulativePhase({ x: phase, before: phaseBefore });
    return { cRotated: rotate(c, phi), bRotated: rotate(b, phi), g, phi };
  },
  vjp({ inputs: { start }, outputs: { cRotated, bRotated, phi }, gradients }) {
    if (start) throw new GraphError("ssmPrepare: has no gradient where it continues from a start");
    const zeros = ({ dtype, shape }: Tensor) => broadcastTo(constant(0, dtype), shape) as Tensor;
    return apply(
      ssmPrepareBackwardOp,
      {
        cRotated,
        bRotated,
        phi,
        cGradient: gradients.cRotated ?? zeros(cRotated),
        bGradient: gradients.bRotated ?? zeros(bRotated),
        gGradient: gradients.g ?? (broadcastTo(constant(0, phi.dtype), phi.shape.slice(0, 3)) as Tensor),
        phiGradient: gradients.phi,
      },
      {},
    );
  },
  source: "Forget Attention, arXiv:2606.02332, section 3",
});

/** What the gradients of ssmPrepare are made of. */
export interface SsmPrepareBackwardInputs {
  readonly [name: string]: Tensor | undefined;
  /** [B,T,H,S] as ssmPrepare gave it */
  readonly cRotated: Tensor;
  /** [B,T,H,S] as ssmPrepare gave it */
  readonly bRotated: Tensor;
  /** [B,T,H,S/2] as ssmPrepare gave it */
  readonly phi: Tensor;
  /** [B,T,H,S], gradient by cRotated */
  readonly cGradient: Tensor;
  /** [B,T,H,S], gradient by bRotated */
  readonly bGradient: Tensor;
  /** [B,T,H], gradient by g */
  readonly gGradient: Tensor;
  /** [B,T,H,S/2], gradient by phi; none where nothing else reads it */
  readonly phiGradient?: Tensor | undefined;
}

/**
 * Gradients of ssmPrepare by c, b [B,T,H,S], logDecay [B,T,H] and phase [B,T,H,S/2], for sequences from their start.
 */
export const ssmPrepareBackwardOp: DefinedOp<
  "ssmPrepareBackward",
  SsmPrepareBackwardInputs,
  Record<string, never>,
  { c: Tensor; b: Tensor; logDecay: Tensor; phase: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "ssmPrepareBackward",
  inputs: ["cRotated", "bRotated", "phi", "cGradient", "bGradient", "gGradient", "phiGradient?"],
  compose({ cRotated, bRotated, phi, cGradient, bGradient, gGradient, phiGradient }) {
    const [cosPhi, sinPhi] = [cos(phi), neg(sin(phi))];
    const turned = add(crossOfPairs(cRotated, cGradient, phi), crossOfPairs(bRotated, bGradient, phi));
    const all = phiGradient ? add(turned, phiGradient) : turned;
    return {
      c: rope(cast(cGradient, cRotated.dtype) as Tensor, cosPhi, sinPhi),
      b: rope(cast(bGradient, bRotated.dtype) as Tensor, cosPhi, sinPhi),
      logDecay: blockCumulativeSum({ x: gGradient }, { size: decayBlock, reverse: true }),
      phase: cumulativeSum(all, { axis: 1, reverse: true }),
    };
  },
});

/**
 * What SISA needs of each token: read and write vectors rotated by the phase so far, and the decay so far.
 *
 * | here | paper |
 * |---|---|
 * | cRotated_t | R(Phi_t) C_t |
 * | bRotated_t | R(Phi_t) B_t |
 * | g_t | sum of log alpha within t's block of 64 positions |
 * | phi_t | Phi_t modulo 2 pi |
 *
 * @param inputs as in SsmPrepareInputs
 * @returns cRotated, bRotated [B,T,H,S]; g [B,T,H]; phi [B,T,H,S/2], radians
 * @throws ShapeError where sizes differ, S is odd, or only some of gBefore, phaseBefore and start are given; DTypeError
 *   unless `start` is int32 and all else floats
 * Source: arXiv:2606.02332, section 3. Sums of the whole sequence would lose the decay between neighbours to rounding,
 * so g restarts at absolute positions, however a sequence is cut into chunks.
 */
export function ssmPrepare(inputs: SsmPrepareInputs): SsmPrepareOutputs {
  return apply(ssmPrepareOp, inputs, {});
}
