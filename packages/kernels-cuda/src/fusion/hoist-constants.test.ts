import { add, concat, evaluate, f32, type Graph, matmul, mul, type Tensor, trace } from "@sisa/core";
import { expect, test } from "vitest";
import { hoistConstants } from "./hoist-constants.ts";

const array = (shape: readonly number[], first: number) => ({
  shape,
  data: Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, index) => first + index),
});
const isAlias = () => false;

test("what depends on constants alone is computed once, and its operands are no inputs any more", () => {
  const graph = trace({ x: f32(2, 3), v: f32(1, 3), w: f32(1, 3), bias: f32(2) }, ({ x, v, w, bias }) => {
    const weights = mul(concat([v, w] as readonly Tensor[], { axis: 0 }), 2);
    return add(matmul(x, weights, { transposeB: true }), bias);
  }) as unknown as Graph;
  const { once, main } = hoistConstants(graph, ["v", "w", "bias"], isAlias);
  expect(Object.keys(once?.inputs ?? {})).toEqual(["v", "w"]);
  expect(Object.keys(main.inputs)).toEqual(["x", "bias", "constant.0"]);
  expect(main.nodes.map(({ op }) => op.name)).toEqual(["matmul", "add"]);
  const values = { x: array([2, 3], 1), v: array([1, 3], 2), w: array([1, 3], -4), bias: array([2], 5) };
  const computed = once ? evaluate(once, values) : {};
  expect(evaluate(main, { ...values, ...computed })).toEqual(evaluate(graph, values));
});

test("where nothing can be computed once, the graph stays as it is", () => {
  const graph = trace({ x: f32(2), w: f32(2) }, ({ x, w }) => mul(x, w)) as unknown as Graph;
  expect(hoistConstants(graph, ["w"], isAlias)).toEqual({ once: undefined, main: graph });
});
