// What becomes of each operation here. A new operation in @sisa/core is a type error in this table until it is decided.

import type { OpName } from "@sisa/core";
import type { Lowering } from "../lowering.ts";
import { adamw, globalNorm } from "./adamw.ts";
import {
  attention,
  attentionBackward,
  decayAttention,
  decayAttentionBackward,
  forgettingAttention,
  forgettingAttentionBackward,
  sigmoidDecayAttention,
  sigmoidDecayAttentionBackward,
} from "./attention.ts";
import { crossEntropy, linearCrossEntropy } from "./cross-entropy.ts";
import * as elementwise from "./elementwise.ts";
import { cacheWrite, gather, scatterAdd, takeRow } from "./gather.ts";
import { linearScan } from "./linear-scan.ts";
import { logSumExp } from "./log-sum-exp.ts";
import { matmul } from "./matmul.ts";
import { argmax, cumulativeSum, max, sum } from "./reductions.ts";
import { rmsNorm, rmsNormBackward } from "./rms-norm.ts";
import { rope } from "./rope.ts";
import { blockCumulativeSum, cumulativePhase } from "./running-sums.ts";
import * as shapes from "./shapes.ts";
import { logSoftmax, softmax } from "./softmax.ts";
import { swiglu, swigluBackward } from "./swiglu.ts";

export const lowerings = {
  abs: elementwise.abs,
  adamw,
  add: elementwise.add,
  and: elementwise.and,
  argmax,
  attention,
  attentionBackward,
  blockCumulativeSum,
  broadcastTo: shapes.broadcastTo,
  cacheWrite,
  cast: elementwise.cast,
  causalConv: "compose",
  chunk: shapes.chunk,
  concat: shapes.concat,
  constant: shapes.constant,
  cos: elementwise.cos,
  crossEntropy,
  cumulativePhase,
  cumulativeSum,
  decayAttention,
  decayAttentionBackward,
  dimSize: shapes.dimSize,
  div: elementwise.div,
  equal: elementwise.equal,
  exp: elementwise.exp,
  floor: elementwise.floor,
  floorDiv: elementwise.floorDiv,
  gather,
  globalNorm,
  iota: shapes.iota,
  finite: elementwise.finite,
  less: elementwise.less,
  lessEqual: elementwise.lessEqual,
  linearCrossEntropy,
  linearScan,
  log: elementwise.log,
  log1p: elementwise.log1p,
  logSoftmax,
  logSumExp,
  matmul,
  max,
  maximum: elementwise.maximum,
  minimum: elementwise.minimum,
  mul: elementwise.mul,
  neg: elementwise.neg,
  not: elementwise.not,
  or: elementwise.or,
  pad: shapes.pad,
  reshape: shapes.reshape,
  rmsNorm,
  rmsNormBackward,
  rope,
  rotate: "compose",
  sampleTokens: "compose",
  scatterAdd,
  sigmoid: elementwise.sigmoid,
  silu: elementwise.silu,
  sin: elementwise.sin,
  sigmoidDecayAttention,
  sigmoidDecayAttentionBackward,
  sisaAttention: "compose",
  slice: shapes.slice,
  softmax,
  softplus: elementwise.softplus,
  split: "compose",
  sqrt: elementwise.sqrt,
  ssdScan: "compose",
  forgettingAttention,
  forgettingAttentionBackward,
  ssdScanBackward: "compose",
  ssmPrepare: "compose",
  ssmPrepareBackward: "compose",
  sub: elementwise.sub,
  sum,
  swiglu,
  swigluBackward,
  takeRow,
  tanh: elementwise.tanh,
  transpose: shapes.transpose,
  unchunk: shapes.unchunk,
  where: elementwise.where,
} as const satisfies { readonly [K in OpName]: Lowering<K> | "compose" | "unsupported" };
