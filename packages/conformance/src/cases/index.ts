// The only list of cases.

import type { OpCases } from "../case.ts";
import { absCases } from "./abs.ts";
import { adamwCases } from "./adamw.ts";
import { addCases } from "./add.ts";
import { andCases } from "./and.ts";
import { argmaxCases } from "./argmax.ts";
import { attentionBackwardCases, attentionCases } from "./attention.ts";
import { blockCumulativeSumCases } from "./block-cumulative-sum.ts";
import { broadcastToCases } from "./broadcast-to.ts";
import { cacheReadCases } from "./cache-read.ts";
import { cacheWriteCases } from "./cache-write.ts";
import { castCases } from "./cast.ts";
import { causalConvCases } from "./causal-conv.ts";
import { chunkCases } from "./chunk.ts";
import { concatCases } from "./concat.ts";
import { constantCases } from "./constant.ts";
import { cosCases } from "./cos.ts";
import { crossEntropyCases } from "./cross-entropy.ts";
import { cumulativePhaseCases } from "./cumulative-phase.ts";
import { cumulativeSumCases } from "./cumulative-sum.ts";
import { decayAttentionBackwardCases, decayAttentionCases } from "./decay-attention.ts";
import { decaySpanCases } from "./decay-span.ts";
import { dimSizeCases } from "./dim-size.ts";
import { divCases } from "./div.ts";
import { equalCases } from "./equal.ts";
import { expCases } from "./exp.ts";
import { finiteCases } from "./finite.ts";
import { floorCases } from "./floor.ts";
import { floorDivCases } from "./floor-div.ts";
import { forgettingAttentionBackwardCases, forgettingAttentionCases } from "./forgetting-attention.ts";
import { gatherCases } from "./gather.ts";
import { globalNormCases } from "./global-norm.ts";
import { inputCases } from "./input.ts";
import { iotaCases } from "./iota.ts";
import { lessCases } from "./less.ts";
import { lessEqualCases } from "./less-equal.ts";
import { linearCases } from "./linear.ts";
import { linearCrossEntropyCases } from "./linear-cross-entropy.ts";
import { linearScanCases } from "./linear-scan.ts";
import { logCases } from "./log.ts";
import { logSoftmaxCases } from "./log-softmax.ts";
import { logSumExpCases } from "./log-sum-exp.ts";
import { log1pCases } from "./log1p.ts";
import { matmulCases } from "./matmul.ts";
import { maxCases } from "./max.ts";
import { maximumCases } from "./maximum.ts";
import { meanCases } from "./mean.ts";
import { minimumCases } from "./minimum.ts";
import { mulCases } from "./mul.ts";
import { negCases } from "./neg.ts";
import { notCases } from "./not.ts";
import { orCases } from "./or.ts";
import { padCases } from "./pad.ts";
import { reshapeCases } from "./reshape.ts";
import { rmsNormBackwardCases, rmsNormCases } from "./rms-norm.ts";
import { ropeCases } from "./rope.ts";
import { rotateCases } from "./rotate.ts";
import { sampleTokensCases } from "./sample-tokens.ts";
import { scatterAddCases } from "./scatter-add.ts";
import { sigmoidCases } from "./sigmoid.ts";
import { sigmoidDecayAttentionBackwardCases, sigmoidDecayAttentionCases } from "./sigmoid-decay-attention.ts";
import { siluCases } from "./silu.ts";
import { sinCases } from "./sin.ts";
import { sisaAttentionCases } from "./sisa-attention.ts";
import { sliceCases } from "./slice.ts";
import { softmaxCases } from "./softmax.ts";
import { softplusCases } from "./softplus.ts";
import { splitCases } from "./split.ts";
import { sqrtCases } from "./sqrt.ts";
import { ssdScanBackwardCases, ssdScanCases } from "./ssd-scan.ts";
import { ssmPrepareBackwardCases, ssmPrepareCases } from "./ssm-prepare.ts";
import { subCases } from "./sub.ts";
import { sumCases } from "./sum.ts";
import { swigluBackwardCases, swigluCases } from "./swiglu.ts";
import { takeRowCases } from "./take-row.ts";
import { tanhCases } from "./tanh.ts";
import { transposeCases } from "./transpose.ts";
import { unchunkCases } from "./unchunk.ts";
import { whereCases } from "./where.ts";

export const allCases: readonly OpCases[] = [
  absCases,
  adamwCases,
  addCases,
  andCases,
  argmaxCases,
  attentionCases,
  attentionBackwardCases,
  blockCumulativeSumCases,
  broadcastToCases,
  cacheReadCases,
  cacheWriteCases,
  castCases,
  causalConvCases,
  chunkCases,
  concatCases,
  constantCases,
  cosCases,
  crossEntropyCases,
  cumulativePhaseCases,
  cumulativeSumCases,
  decayAttentionCases,
  decayAttentionBackwardCases,
  decaySpanCases,
  dimSizeCases,
  divCases,
  equalCases,
  expCases,
  finiteCases,
  floorDivCases,
  floorCases,
  forgettingAttentionCases,
  forgettingAttentionBackwardCases,
  gatherCases,
  globalNormCases,
  inputCases,
  iotaCases,
  lessEqualCases,
  lessCases,
  linearCrossEntropyCases,
  linearScanCases,
  linearCases,
  logSoftmaxCases,
  logSumExpCases,
  logCases,
  log1pCases,
  matmulCases,
  maxCases,
  maximumCases,
  meanCases,
  minimumCases,
  mulCases,
  negCases,
  notCases,
  orCases,
  padCases,
  reshapeCases,
  rmsNormCases,
  rmsNormBackwardCases,
  ropeCases,
  rotateCases,
  sampleTokensCases,
  scatterAddCases,
  sigmoidCases,
  sigmoidDecayAttentionCases,
  sigmoidDecayAttentionBackwardCases,
  siluCases,
  sinCases,
  sisaAttentionCases,
  sliceCases,
  softmaxCases,
  softplusCases,
  splitCases,
  sqrtCases,
  ssdScanCases,
  ssdScanBackwardCases,
  ssmPrepareBackwardCases,
  ssmPrepareCases,
  subCases,
  sumCases,
  swigluCases,
  swigluBackwardCases,
  takeRowCases,
  tanhCases,
  transposeCases,
  unchunkCases,
  whereCases,
];
