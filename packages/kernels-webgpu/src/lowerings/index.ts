// What becomes of each operation here. A new operation in @sisa/core is a type error in this table until it is decided.
// "compose": by other operations. "place": nothing is computed, or it is known before anything runs.

import type { OpName } from "@sisa/core";
import { attention, decayAttention } from "../kernels/attention.ts";
import { attentionBackward, decayAttentionBackward } from "../kernels/attention-backward.ts";
import { linearCrossEntropy } from "../kernels/cross-entropy.ts";
import { matmul } from "../kernels/matmul.ts";
import { rmsNorm, rmsNormBackward } from "../kernels/norm.ts";
import { adamw, globalNorm } from "../kernels/optimizer.ts";
import { argmax, max, sum } from "../kernels/reduce.ts";
import { cacheWrite, gather, scatterAdd, swigluBackward, takeRow } from "../kernels/rows.ts";
import { sampleTokens } from "../kernels/sample.ts";
import { blockCumulativeSum, cumulativePhase, cumulativeSum, linearScan, ssmPrepare } from "../kernels/scan.ts";
import type { Lowering } from "../lowering.ts";
import * as elementwise from "./elementwise.ts";
import * as places from "./places.ts";

export const lowerings = {
  abs: elementwise.abs,
  adamw,
  add: elementwise.add,
  and: elementwise.and,
  argmax,
  attention,
  attentionBackward,
  blockCumulativeSum,
  broadcastTo: places.broadcastTo,
  cacheWrite,
  cast: elementwise.cast,
  causalConv: "compose",
  chunk: places.chunk,
  concat: places.concat,
  constant: "place",
  cos: elementwise.cos,
  crossEntropy: "compose",
  cumulativePhase,
  cumulativeSum,
  decayAttention,
  decayAttentionBackward,
  dimSize: "place",
  div: elementwise.div,
  equal: elementwise.equal,
  exp: elementwise.exp,
  floor: elementwise.floor,
  floorDiv: elementwise.floorDiv,
  gather,
  globalNorm,
  iota: places.iota,
  finite: elementwise.finite,
  less: elementwise.less,
  lessEqual: elementwise.lessEqual,
  linearCrossEntropy,
  linearScan,
  log: elementwise.log,
  log1p: elementwise.log1p,
  logSoftmax: "compose",
  logSumExp: "compose",
  matmul,
  max,
  maximum: elementwise.maximum,
  minimum: elementwise.minimum,
  mul: elementwise.mul,
  neg: elementwise.neg,
  not: elementwise.not,
  or: elementwise.or,
  pad: places.pad,
  reshape: "place",
  rmsNorm,
  rmsNormBackward,
  rope: "compose",
  rotate: "compose",
  sampleTokens,
  scatterAdd,
  sigmoid: elementwise.sigmoid,
  silu: "compose",
  sin: elementwise.sin,
  sigmoidDecayAttention: "compose",
  sigmoidDecayAttentionBackward: "compose",
  sisaAttention: "compose",
  slice: places.slice,
  softmax: "compose",
  softplus: elementwise.softplus,
  split: "compose",
  sqrt: elementwise.sqrt,
  ssmPrepare,
  ssmPrepareBackward: "compose",
  ssdScan: "compose",
  forgettingAttention: "compose",
  forgettingAttentionBackward: "compose",
  ssdScanBackward: "compose",
  sub: elementwise.sub,
  sum,
  swiglu: "compose",
  swigluBackward,
  takeRow,
  tanh: elementwise.tanh,
  transpose: places.transpose,
  unchunk: places.unchunk,
  where: elementwise.where,
} as const satisfies { readonly [K in OpName]: Lowering | "compose" | "place" };
