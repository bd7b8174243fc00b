// The only list of operations. Adding one here makes every backend's table of lowerings fail to compile until somebody
// decides what it does there.

export { abs, absOp } from "./abs.ts";
export { type AdamwAttributes, type AdamwInputs, type AdamwOutputs, adamw, adamwOp } from "./adamw.ts";
export { add, addOp } from "./add.ts";
export { and, andOp } from "./and.ts";
export { argmax, argmaxOp } from "./argmax.ts";
export {
  type AttentionBackwardInputs,
  type AttentionInputs,
  attention,
  attentionBackwardOp,
  attentionOp,
} from "./attention.ts";
export { blockCumulativeSum, blockCumulativeSumOp } from "./block-cumulative-sum.ts";
export { broadcastTo, broadcastToOp } from "./broadcast-to.ts";
export { cacheRead } from "./cache-read.ts";
export { cacheWrite, cacheWriteOp } from "./cache-write.ts";
export { cast, castOp } from "./cast.ts";
export { causalConv, causalConvOp } from "./causal-conv.ts";
export { chunk, chunkOp } from "./chunk.ts";
export { concat, concatOp } from "./concat.ts";
export { constant, constantOp } from "./constant.ts";
export { cos, cosOp } from "./cos.ts";
export { type CrossEntropyInputs, crossEntropy, crossEntropyOp } from "./cross-entropy.ts";
export { cumulativePhase, cumulativePhaseOp } from "./cumulative-phase.ts";
export { cumulativeSum, cumulativeSumOp } from "./cumulative-sum.ts";
export {
  type DecayAttentionInputs,
  decayAttention,
  decayAttentionBackwardOp,
  decayAttentionOp,
  decaySums,
} from "./decay-attention.ts";
export { decaySpan } from "./decay-span.ts";
export { dimSize, dimSizeOp } from "./dim-size.ts";
export { div, divOp } from "./div.ts";
export type { Operand, SecondOperand } from "./elementwise.ts";
export { equal, equalOp } from "./equal.ts";
export { exp, expOp } from "./exp.ts";
export { finite, finiteOp } from "./finite.ts";
export { floor, floorOp } from "./floor.ts";
export { floorDiv, floorDivOp } from "./floor-div.ts";
export {
  type ForgettingAttentionInputs,
  forgettingAttention,
  forgettingAttentionBackwardOp,
  forgettingAttentionOp,
} from "./forgetting-attention.ts";
export { gather, gatherOp } from "./gather.ts";
export { clipFactor, globalNorm, globalNormOp } from "./global-norm.ts";
export { iota, iotaOp } from "./iota.ts";
export { less, lessOp } from "./less.ts";
export { lessEqual, lessEqualOp } from "./less-equal.ts";
export { linear } from "./linear.ts";
export {
  type LinearCrossEntropyInputs,
  linearCrossEntropy,
  linearCrossEntropyOp,
} from "./linear-cross-entropy.ts";
export { linearScan, linearScanOp } from "./linear-scan.ts";
export { log, logOp } from "./log.ts";
export { logSoftmax, logSoftmaxOp } from "./log-softmax.ts";
export { logSumExp, logSumExpOp } from "./log-sum-exp.ts";
export { log1p, log1pOp } from "./log1p.ts";
export { matmul, matmulOp } from "./matmul.ts";
export { max, maxOp } from "./max.ts";
export { maximum, maximumOp } from "./maximum.ts";
export { mean } from "./mean.ts";
export { minimum, minimumOp } from "./minimum.ts";
export { mul, mulOp } from "./mul.ts";
export { neg, negOp } from "./neg.ts";
export { not, notOp } from "./not.ts";
export { or, orOp } from "./or.ts";
export { pad, padOp } from "./pad.ts";
export type { ReduceOptions } from "./reduce.ts";
export { reshape, reshapeOp } from "./reshape.ts";
export { rmsNorm, rmsNormBackwardOp, rmsNormOp } from "./rms-norm.ts";
export { rope, ropeOp } from "./rope.ts";
export { rotate, rotateOp } from "./rotate.ts";
export { type SampleTokensInputs, sampleTokens, sampleTokensOp } from "./sample-tokens.ts";
export { scatterAdd, scatterAddOp } from "./scatter-add.ts";
export { sigmoid, sigmoidOp } from "./sigmoid.ts";
export {
  sigmoidDecayAttention,
  sigmoidDecayAttentionBackwardOp,
  sigmoidDecayAttentionOp,
} from "./sigmoid-decay-attention.ts";
export { silu, siluOp } from "./silu.ts";
export { sin, sinOp } from "./sin.ts";
export {
  type SisaAttentionInputs,
  type SisaForm,
  type SisaWeights,
  sdpaClamp,
  sisaAttention,
  sisaAttentionOp,
} from "./sisa-attention.ts";
export { slice, sliceOp } from "./slice.ts";
export { softmax, softmaxOp } from "./softmax.ts";
export { softplus, softplusOp } from "./softplus.ts";
export { split, splitOp } from "./split.ts";
export { sqrt, sqrtOp } from "./sqrt.ts";
export { type SsdScanInputs, ssdChunk, ssdScan, ssdScanBackwardOp, ssdScanOp } from "./ssd-scan.ts";
export {
  decayBlock,
  type SsmPrepareBackwardInputs,
  type SsmPrepareInputs,
  type SsmPrepareOutputs,
  ssmPrepare,
  ssmPrepareBackwardOp,
  ssmPrepareOp,
} from "./ssm-prepare.ts";
export { sub, subOp } from "./sub.ts";
export { type SumOptions, sum, sumOp } from "./sum.ts";
export { swiglu, swigluBackwardOp, swigluOp } from "./swiglu.ts";
export { takeRow, takeRowOp } from "./take-row.ts";
export { tanh, tanhOp } from "./tanh.ts";
export { transpose, transposeOp } from "./transpose.ts";
export { unchunk, unchunkOp } from "./unchunk.ts";
export { where, whereOp } from "./where.ts";
