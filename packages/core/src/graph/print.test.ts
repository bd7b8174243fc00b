import { expect, test } from "vitest";
import { dim } from "../dim.ts";
import { add } from "../ops/add.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { constant } from "../ops/constant.ts";
import { crossEntropyOp } from "../ops/cross-entropy.ts";
import { exp } from "../ops/exp.ts";
import { linearScan } from "../ops/linear-scan.ts";
import { matmul } from "../ops/matmul.ts";
import { mean } from "../ops/mean.ts";
import { mul } from "../ops/mul.ts";
import { silu } from "../ops/silu.ts";
import { slice } from "../ops/slice.ts";
import { where } from "../ops/where.ts";
import { bool, f32, i32 } from "../spec.ts";
import { trace } from "./graph.ts";
import { apply, applyOp, definePrimitive } from "./op.ts";
import type { Tensor } from "./tensor.ts";

test("one line for each node, with scalars where they are used", () => {
  const graph = trace({ x: f32("T", 8), w: f32(8, 4) }, ({ x, w }) => mean(silu(matmul(x, w))));
  expect(String(graph)).toMatchInlineSnapshot(`
    "graph(x: float32[T,8], w: float32[8,4]) {
      %0 = matmul(x, w)             : float32[T,4]
      %1 = silu(%0)                 : float32[T,4]
      %2 = sum(%1) {axes=[0,1]}     : float32[]
      %3 = dimSize(%1) {axis=0}     : int32[]
      %4 = cast(%3) {dtype=float32} : float32[]
      %5 = mul(4, %4)               : float32[]
      %6 = div(%2, %5)              : float32[]
    } -> value: float32[] = %6"
  `);
});

test("inputs have names where there are more than two, and outputs where there are several", () => {
  const graph = trace(
    { a: f32(2, "T", 3), b: f32(2, "T", 3), h: f32(2, 3), mask: bool(3), logits: f32(4, 9), targets: i32(4) },
    ({ a, b, h, mask, logits, targets }) => {
      const entropy = apply(crossEntropyOp, { logits, targets }, {});
      return {
        scan: linearScan({ a, b, h0: h }, { reverse: true }),
        without: linearScan({ a, b }),
        chosen: where(mask, h, 0),
        loss: entropy.value,
        total: entropy.logSumExp,
        input: h,
      };
    },
  );
  expect(String(graph)).toMatchInlineSnapshot(`
    "graph(a: float32[2,T,3], b: float32[2,T,3], h: float32[2,3], mask: bool[3], logits: float32[4,9], targets: int32[4]) {
      %0 = crossEntropy(logits, targets)             : value float32[], logSumExp float32[4,1]
      %1 = linearScan(a=a, b=b, h0=h) {reverse=true} : float32[2,T,3]
      %2 = linearScan(a=a, b=b)                      : float32[2,T,3]
      %3 = where(condition=mask, a=h, b=0)           : float32[2,3]
    } -> scan: float32[2,T,3] = %1, without: float32[2,T,3] = %2, chosen: float32[2,3] = %3, loss: float32[] = %0.value, total: float32[4,1] = %0.logSumExp, input: float32[2,3] = h"
  `);
});

test("attributes, tags and constants", () => {
  const graph = trace({ x: f32("B", "T") }, ({ x }) => {
    const table = constant(Float32Array.of(0.1, 1 / 3, -0, Number.NaN, 5, 6), "float32", [2, 3]);
    const tail = slice(x, { axis: 1, start: dim("T").minus(1) });
    const tagged = applyOp(tail.node.op, tail.node.inputs, tail.node.attributes, "recompute").value as Tensor;
    return { table, tail, tagged, wide: broadcastTo(constant(Number.NEGATIVE_INFINITY), ["T", dim("T").ceilDiv(4)]) };
  });
  expect(String(graph)).toMatchInlineSnapshot(`
    "graph(x: float32[B,T]) {
      %0 = constant() {spec=float32[2,3], data=[0.1,0.33333334,-0,NaN,... 6]} : float32[2,3]
      %1 = slice(x) {axis=1, start=T - 1, end=T}                              : float32[B,1]
      %2 = slice(x) {axis=1, start=T - 1, end=T} @recompute                   : float32[B,1]
      %3 = broadcastTo(-Infinity) {shape=[T,ceilDiv(T, 4)]}                   : float32[T,ceilDiv(T, 4)]
    } -> table: float32[2,3] = %0, tail: float32[B,1] = %1, tagged: float32[B,1] = %2, wide: float32[T,ceilDiv(T, 4)] = %3"
  `);
});

test("settings of every plain kind can be read", () => {
  const op = definePrimitive<"acme/settings", { readonly x: Tensor }, { readonly [name: string]: unknown }>({
    name: "acme/settings",
    inputs: ["x"],
    infer: ({ x }) => ({ value: x }),
    reference: () => {},
    vjp: { reason: "it is a test" },
  });
  const attributes = {
    text: "exact",
    yes: true,
    no: false,
    absent: undefined,
    number: 0.1,
    zero: -0,
    list: [1, dim("T")],
    spec: f32("T", 2),
    nested: { ratio: 0.5, mode: "fast" },
    one: Float32Array.of(0.1),
    exact: Float64Array.of(0.1, 1e-7),
    bits: Uint8Array.of(1, 0),
  };
  const graph = trace({ x: f32("T") }, ({ x }) => apply(op, { x }, attributes).value);
  expect(String(graph)).toMatchInlineSnapshot(`
    "graph(x: float32[T]) {
      %0 = acme/settings(x) {text=exact, yes=true, number=0.1, zero=-0, list=[1,T], spec=float32[T,2], nested={ratio=0.5,mode=fast}, one=0.1, exact=[0.1,1e-7], bits=[1,0]} : float32[T]
    } -> value: float32[T] = %0"
  `);
});

test("float32 scalars print as the shortest decimal that is them", () => {
  const values = [0.1, 1e-6, 1 / 3, 16_777_216, 3.4028234663852886e38, 1e-45, -0, Number.NaN, 0.5 ** 0.5];
  const graph = trace({ x: f32() }, ({ x }) => values.reduce<Tensor>((total, value) => add(total, value), x));
  const shown = [...String(graph).matchAll(/add\([^,]+, (\S+)\)/g)].map(([, text]) => text);
  expect(shown).toEqual([
    "0.1",
    "0.000001",
    "0.33333334",
    "16777216",
    "3.4028235e+38",
    "1e-45",
    "-0",
    "NaN",
    "0.70710677",
  ]);
  expect(shown.map((text) => Math.fround(Number(text)))).toEqual(values.map(Math.fround));
});

test("the text does not depend on what was traced before", () => {
  const program = () => trace({ x: f32(3) }, ({ x }) => mul(exp(x), exp(x)));
  const first = String(program());
  trace({ y: f32(5) }, ({ y }) => exp(exp(y)));
  expect(String(program())).toBe(first);
});

test("a graph without nodes, and one with very many", () => {
  expect(String(trace({ x: f32(2) }, ({ x }) => x))).toMatchInlineSnapshot(`
    "graph(x: float32[2]) {
    } -> value: float32[2] = x"
  `);
  const long = trace({ x: f32(2) }, ({ x }) => {
    let y = x;
    for (let step = 0; step < 150_000; step++) y = exp(y);
    return y;
  });
  expect(String(long).split("\n")).toHaveLength(150_002);
});
