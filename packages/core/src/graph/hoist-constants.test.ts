import { expect, test } from "vitest";
import { add } from "../ops/add.ts";
import { broadcastTo, broadcastToOp } from "../ops/broadcast-to.ts";
import { concat } from "../ops/concat.ts";
import { matmul } from "../ops/matmul.ts";
import { mul, mulOp } from "../ops/mul.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32 } from "../spec.ts";
import { type Graph, trace } from "./graph.ts";
import { hoistConstants } from "./hoist-constants.ts";
import type { Node, Tensor } from "./tensor.ts";

const array = (shape: readonly number[], first: number) => ({
  shape,
  data: Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, index) => first + index),
});
const isFree = () => false;

test("what depends on constants alone is computed once, and its operands are no inputs any more", () => {
  const graph = trace({ x: f32(2, 3), v: f32(1, 3), w: f32(1, 3), bias: f32(2) }, ({ x, v, w, bias }) => {
    const weights = mul(concat([v, w] as readonly Tensor[], { axis: 0 }), 2);
    return add(matmul(x, weights, { transposeB: true }), bias);
  }) as unknown as Graph;
  const { once, main } = hoistConstants(graph, ["v", "w", "bias"], isFree);
  expect(Object.keys(once?.inputs ?? {})).toEqual(["v", "w"]);
  expect(Object.keys(main.inputs)).toEqual(["x", "bias", "constant.0"]);
  expect(main.nodes.map(({ op }) => op.name)).toEqual(["matmul", "add"]);
  const values = { x: array([2, 3], 1), v: array([1, 3], 2), w: array([1, 3], -4), bias: array([2], 5) };
  const computed = once ? evaluate(once, values) : {};
  expect(evaluate(main, { ...values, ...computed })).toEqual(evaluate(graph, values));
});

test("where nothing can be computed once, the graph stays as it is", () => {
  const graph = trace({ x: f32(2), w: f32(2) }, ({ x, w }) => mul(x, w)) as unknown as Graph;
  expect(hoistConstants(graph, ["w"], isFree)).toEqual({ once: undefined, main: graph });
});

test("what is free for its reader stays there, unless another reader has it computed", () => {
  const graphOf = (isReadTwice: boolean) =>
    trace({ x: f32(2, 3), w: f32(3) }, ({ x, w }) => {
      const wide = broadcastTo(mul(w, 2), [2, 3]);
      return add(mul(x, wide), isReadTwice ? wide : x);
    }) as unknown as Graph;
  for (const [isReadTwice, shape, nodes] of [
    [false, "3", ["broadcastTo", "mul", "add"]],
    [true, "2,3", ["mul", "add"]],
  ] as const) {
    const graph = graphOf(isReadTwice);
    const isWideFree = (node: Node, reader?: Node) => node.op === broadcastToOp && reader?.op === mulOp;
    const { once, main } = hoistConstants(graph, ["w"], isWideFree);
    expect(Object.values(once?.outputs ?? {}).map(({ shape }) => shape.join())).toEqual([shape]);
    expect(main.nodes.map(({ op }) => op.name)).toEqual(nodes);
    const values = { x: array([2, 3], 1), w: array([3], 5) };
    expect(evaluate(main, { ...values, ...(once ? evaluate(once, values) : {}) })).toEqual(evaluate(graph, values));
  }
});
