// What becomes of each operation here. A new operation in @sisa/core is a type error in this table until it is decided.

import type { Node, OpName } from "@sisa/core";
import { decodeStepOp, normGatesOp, normProductOp } from "../fusion/decoding-operations.ts";
import {
  adamwManyOp,
  addRowsOp,
  attentionBackwardRotatedOp,
  decayAttentionBackwardJoinedOp,
  decayAttentionBackwardStatesOp,
  decayAttentionStatesOp,
  logDecayOp,
  productAddOp,
  rmsNormBackwardAddOp,
  ssmPrepareBackwardNarrowOp,
} from "../fusion/operations.ts";
import type { LoweringRule } from "../plan.ts";
import * as attention from "./attention.ts";
import * as decode from "./decode.ts";
import { decodeStep } from "./decode-step.ts";
import * as elementwise from "./elementwise.ts";
import { normGates, normProduct } from "./few-rows.ts";
import * as fused from "./fused.ts";
import { matmul, multiply } from "./matmul.ts";
import * as movement from "./movement.ts";
import * as optimizer from "./optimizer.ts";
import * as reduction from "./reduction.ts";
import * as sample from "./sample.ts";
import * as ssm from "./ssm-prepare.ts";

export interface Lowering {
  readonly lower: LoweringRule;
  /** Nodes for which the composition is taken instead. */
  readonly declines?: (node: Node) => boolean;
}

const always = (lower: LoweringRule): Lowering => ({ lower });

/** The first of two that does not decline. */
const either = (first: Lowering, second: Lowering): Lowering => ({
  lower: (context) => (first.declines?.(context.node) ? second : first).lower(context),
  declines: (node) => first.declines?.(node) === true && second.declines?.(node) === true,
});

export const lowerings = {
  abs: always(elementwise.abs),
  adamw: optimizer.adamw,
  add: always(elementwise.add),
  and: always(elementwise.and),
  argmax: always(reduction.argmax),
  attention: either(attention.attention, decode.cachedAttention),
  attentionBackward: attention.attentionBackward,
  blockCumulativeSum: always(reduction.blockCumulativeSum),
  broadcastTo: always(movement.broadcastTo),
  cacheWrite: always(movement.cacheWrite),
  cast: always(elementwise.cast),
  causalConv: "compose",
  chunk: always(movement.chunk),
  concat: always(movement.concat),
  // The planner gives constants their memory.
  constant: "constant",
  cos: always(elementwise.cos),
  crossEntropy: "compose",
  cumulativePhase: always(reduction.cumulativePhase),
  cumulativeSum: always(reduction.cumulativeSum),
  decayAttention: either(attention.decayAttention, decode.cachedAttention),
  decayAttentionBackward: attention.decayAttentionBackward,
  // Sizes are bound, so that folding has made constants of them.
  dimSize: "constant",
  div: always(elementwise.div),
  equal: always(elementwise.equal),
  exp: always(elementwise.exp),
  finite: always(elementwise.finite),
  floor: always(elementwise.floor),
  floorDiv: always(elementwise.floorDiv),
  gather: always(movement.gather),
  globalNorm: optimizer.globalNorm,
  iota: always(movement.iota),
  less: always(elementwise.less),
  lessEqual: always(elementwise.lessEqual),
  linearCrossEntropy: fused.linearCrossEntropy,
  linearScan: always(reduction.linearScan),
  log: always(elementwise.log),
  log1p: always(elementwise.log1p),
  logSoftmax: "compose",
  logSumExp: "compose",
  matmul: always(matmul),
  max: always(reduction.max),
  maximum: always(elementwise.maximum),
  minimum: always(elementwise.minimum),
  mul: always(elementwise.mul),
  neg: always(elementwise.neg),
  not: always(elementwise.not),
  or: always(elementwise.or),
  pad: always(movement.pad),
  // Reshapes and slices are aliases of their inputs.
  reshape: "constant",
  rmsNorm: fused.rmsNorm,
  rmsNormBackward: fused.rmsNormBackward,
  rope: fused.rope,
  rotate: "compose",
  sampleTokens: sample.sampleTokens,
  scatterAdd: always(movement.scatterAdd),
  sigmoid: always(elementwise.sigmoid),
  silu: always(elementwise.silu),
  sin: always(elementwise.sin),
  sigmoidDecayAttention: "compose",
  sigmoidDecayAttentionBackward: "compose",
  sisaAttention: "compose",
  slice: "constant",
  softmax: "compose",
  softplus: always(elementwise.softplus),
  split: "compose",
  sqrt: always(elementwise.sqrt),
  ssdScan: "compose",
  forgettingAttention: "compose",
  forgettingAttentionBackward: "compose",
  ssdScanBackward: "compose",
  ssmPrepare: either(ssm.ssmPrepare, decode.continueStates),
  ssmPrepareBackward: ssm.ssmPrepareBackward,
  sub: always(elementwise.sub),
  sum: always(reduction.sum),
  swiglu: fused.swiglu,
  swigluBackward: fused.swigluBackward,
  takeRow: always(movement.takeRow),
  tanh: always(elementwise.tanh),
  transpose: always(movement.transpose),
  unchunk: always(movement.unchunk),
  where: always(elementwise.where),
} as const satisfies { readonly [K in OpName]: Lowering | "compose" | "constant" };

/** Lowerings of the operations that only this backend has. */
const ownLowerings: { readonly [name: string]: Lowering } = {
  [adamwManyOp.name]: optimizer.adamwMany,
  [addRowsOp.name]: always(movement.addRows),
  [decodeStepOp.name]: either(decodeStep, decode.decodeChunk),
  [normGatesOp.name]: normGates,
  [normProductOp.name]: normProduct,
  [productAddOp.name]: always((context) => multiply(context, context.input("addend"))),
  [attentionBackwardRotatedOp.name]: attention.attentionBackward,
  [decayAttentionBackwardJoinedOp.name]: attention.decayAttentionBackward,
  [decayAttentionBackwardStatesOp.name]: attention.decayAttentionBackward,
  [decayAttentionStatesOp.name]: attention.decayAttentionStates,
  [logDecayOp.name]: ssm.logDecay,
  [rmsNormBackwardAddOp.name]: fused.rmsNormBackward,
  [ssmPrepareBackwardNarrowOp.name]: ssm.ssmPrepareBackward,
};

/** The lowering of a node; undefined where its composition is to be taken, or where it needs no step. */
export function loweringOf(node: Node): Lowering | undefined {
  const table: { readonly [name: string]: Lowering | "compose" | "constant" } = { ...lowerings, ...ownLowerings };
  const found = Object.hasOwn(table, node.op.name) ? table[node.op.name] : undefined;
  return typeof found === "object" && !found.declines?.(node) ? found : undefined;
}
