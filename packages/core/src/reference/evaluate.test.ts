import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { GraphError } from "../errors.ts";
import { trace } from "../graph/graph.ts";
import { apply, applyOp, defineComposite, definePrimitive, type NdArray } from "../graph/op.ts";
import { expandComposites } from "../graph/passes.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "../ops/add.ts";
import { cast } from "../ops/cast.ts";
import { exp } from "../ops/exp.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { silu } from "../ops/silu.ts";
import { f32, i32 } from "../spec.ts";
import { emptyArray, evaluate, evaluateNode } from "./evaluate.ts";

const vector = (...values: readonly number[]): NdArray => ({ shape: [values.length], data: Float64Array.from(values) });

/** An identity that tells when it is computed. */
function tracked(log: string[]) {
  const op = definePrimitive<"acme/tracked", { readonly x: Tensor }, { readonly label: string }>({
    name: "acme/tracked",
    inputs: ["x"],
    infer: ({ x }) => ({ value: x }),
    reference({ x }, { label }, { value }) {
      log.push(label);
      value.data.set(x.data);
    },
    vjp: { reason: "it is a test" },
  });
  return (x: Tensor, label: string) => apply(op, { x }, { label }).value;
}

describe("evaluate", () => {
  test("runs nodes in the order of the graph, and only those that are needed", () => {
    const log: string[] = [];
    const mark = tracked(log);
    const graph = trace({ x: f32(1) }, ({ x }) => {
      mark(x, "unused");
      const a = mark(x, "a");
      const b = mark(neg(a), "b");
      return add(mark(b, "c"), a);
    });
    expect(evaluate(graph, { x: vector(2) }).value).toEqual(vector(0));
    expect(log).toEqual(["a", "b", "c"]);
  });

  test("rounds each result to its dtype where asked, and widens nothing else", () => {
    const graph = trace({ x: f32(1) }, ({ x }) => ({
      single: mul(x, x),
      narrow: cast(x, "bfloat16"),
      half: cast(mul(x, x), "float16"),
      whole: cast(x, "int32"),
      flag: cast(x, "bool"),
    }));
    const inputs = { x: vector(1 / 3) };
    const rounded = evaluate(graph, inputs, "rounded");
    expect(rounded.single?.data[0]).toBe(Math.fround(1 / 9));
    expect(rounded.narrow?.data[0]).toBe(0.333984375);
    expect(rounded.half?.data[0]).toBe(0.111083984375);
    expect(rounded.whole?.data).toEqual(Int32Array.of(0));
    expect(rounded.flag?.data).toEqual(Uint8Array.of(1));
    const full = evaluate(graph, inputs, "float64");
    expect(full.single?.data[0]).toBe((1 / 3) * (1 / 3));
    expect(full.narrow?.data[0]).toBe(1 / 3);
  });

  test("computes composites by their composition, in both modes bit for bit", () => {
    const graph = trace({ x: f32(2, 3), w: f32(3) }, ({ x, w }) => silu(rmsNorm(x, w)));
    const inputs = { x: { shape: [2, 3], data: Float64Array.of(1, -2, 3, 0.5, 0, 4) }, w: vector(1, 2, 3) };
    for (const mode of ["rounded", "float64"] as const) {
      expect(evaluate(graph, inputs, mode)).toEqual(
        evaluate(
          expandComposites(graph, () => true),
          inputs,
          mode,
        ),
      );
    }
  });

  test("a composite may give an input, one value twice, and values that nobody reads", () => {
    const op = defineComposite<
      "acme/outputs",
      { readonly x: Tensor },
      Record<string, never>,
      { same: Tensor; a: Tensor; b: Tensor; unread: Tensor }
    >({
      name: "acme/outputs",
      inputs: ["x"],
      compose({ x }) {
        const y = exp(x);
        return { same: x, a: y, b: y, unread: neg(neg(x)) };
      },
    });
    const graph = trace({ x: f32(1) }, ({ x }) => {
      const { same, a, b } = apply(op, { x }, {});
      return { same, sum: add(a, b) };
    });
    expect(evaluate(graph, { x: vector(0) })).toEqual({ same: vector(0), sum: vector(2) });
  });

  test("never changes its inputs", () => {
    const graph = trace({ x: f32(2) }, ({ x }) => ({ x, y: mul(neg(x), 2) }));
    const x = vector(1, 2);
    evaluate(graph, { x }, "rounded");
    expect(x).toEqual(vector(1, 2));
  });

  test("refuses inputs that are missing or of another size, and graphs that are not bound", () => {
    const graph = trace({ x: f32(2), y: f32(1) }, ({ x, y }) => add(x, y));
    expect(() => evaluate(graph, { x: vector(1, 2) })).toThrow(new GraphError('reference: input "y" is missing'));
    expect(() => evaluate(graph, { x: vector(1), y: vector(1) })).toThrow(
      new GraphError('reference: input "x" must be [2], got [1]'),
    );
    expect(() =>
      evaluate(
        trace({ x: f32("T") }, ({ x }) => exp(x)),
        { x: vector(1) },
      ),
    ).toThrow(new GraphError("size T is not bound; call graph.bind({ T: ... }) first"));
  });

  test("forgets values once nothing reads them, and those that nothing ever reads", () => {
    setFlagsFromString("--expose-gc");
    const collectGarbage: unknown = runInNewContext("gc");
    expect.assert(typeof collectGarbage === "function");
    const megabyte = 2 ** 20;
    const held: number[] = [];
    const op = definePrimitive<
      "acme/pair",
      { readonly x: Tensor },
      Record<string, never>,
      { value: Tensor; extra: Tensor }
    >({
      name: "acme/pair",
      inputs: ["x"],
      infer: ({ x }) => ({ value: x, extra: x }),
      reference() {
        collectGarbage();
        held.push(process.memoryUsage().arrayBuffers / megabyte);
      },
      vjp: { reason: "it is a test" },
    });
    const graph = trace({ x: f32(megabyte) }, ({ x }) => {
      let y = x;
      for (let step = 0; step < 20; step++) y = apply(op, { x: y }, {}).value;
      return y;
    });
    evaluate(graph, { x: { shape: [megabyte], data: new Float64Array(megabyte) } });
    expect(held).toHaveLength(20);
    // A node's input and its two outputs, 8 MB each, are all there is at a time; kept values would add 16 MB a step.
    expect((held.at(-1) ?? 0) - (held[1] ?? 0)).toBeLessThan(40);
  });
});

describe("evaluateNode", () => {
  test("gives the outputs of one node", () => {
    const { node } = trace({ x: f32(2) }, ({ x }) => exp(x)).outputTensors.value ?? {};
    expect.assert(node);
    expect(evaluateNode(node, { x: vector(0, 1) }, "rounded")).toEqual({ value: vector(1, Math.fround(Math.E)) });
  });

  test("says which operation lacks a definition", () => {
    const primitive = { name: "acme/none", kind: "primitive", inputs: [], infer: () => ({ value: f32(1) }) } as const;
    const { value } = applyOp(primitive, {}, {});
    expect.assert(value);
    expect(() => evaluateNode(value.node, {}, "rounded")).toThrow(
      new GraphError("acme/none: is a primitive without a reference"),
    );
    const composite = { ...primitive, kind: "composite" } as const;
    const { value: composed } = applyOp(composite, {}, {});
    expect.assert(composed);
    expect(() => evaluateNode(composed.node, {}, "rounded")).toThrow(
      new GraphError("acme/none: is a composite without a composition"),
    );
  });
});

test("empty arrays have the element type of the kind", () => {
  expect(emptyArray(f32(2, 3))).toEqual({ shape: [2, 3], data: new Float64Array(6) });
  expect(emptyArray(i32())).toEqual({ shape: [], data: new Int32Array(1) });
  expect(emptyArray({ dtype: "bool", shape: f32(0).shape })).toEqual({ shape: [0], data: new Uint8Array(0) });
});
