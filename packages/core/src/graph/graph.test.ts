import { describe, expect, test, vi } from "vitest";
import { dim, shapeText } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { add } from "../ops/add.ts";
import { constant } from "../ops/constant.ts";
import { exp } from "../ops/exp.ts";
import { iota } from "../ops/iota.ts";
import { linear } from "../ops/linear.ts";
import { matmul } from "../ops/matmul.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { slice } from "../ops/slice.ts";
import { sum } from "../ops/sum.ts";
import { swiglu } from "../ops/swiglu.ts";
import { evaluate } from "../reference/evaluate.ts";
import { bool, f32, i32, specText } from "../spec.ts";
import { type Graph, inputTensor, rebuild, rewrite, trace } from "./graph.ts";
import type { AnyTensor, Tensor } from "./tensor.ts";
import { verify } from "./verify.ts";

const names = (graph: Graph) => graph.nodes.map((node) => node.op.name);

/** The error that a function throws. */
function thrown(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  return expect.fail("expected an error");
}

describe("trace", () => {
  test("records what a function does, with inputs and outputs in order", () => {
    const graph = trace({ x: f32("T", 8), w: f32(8, 4), scale: f32() }, ({ x, w, scale }) => {
      const y = matmul(x, w);
      return { scaled: mul(y, scale), total: sum(y) };
    });
    expect(Object.entries(graph.inputs).map(([name, spec]) => `${name} ${specText(spec)}`)).toEqual([
      "x float32[T,8]",
      "w float32[8,4]",
      "scale float32[]",
    ]);
    expect(Object.entries(graph.outputs).map(([name, spec]) => `${name} ${specText(spec)}`)).toEqual([
      "scaled float32[T,4]",
      "total float32[]",
    ]);
    expect(names(graph)).toEqual(["matmul", "mul", "sum"]);
    expect([...graph.symbols]).toEqual(["T"]);
  });

  test("a single tensor is the output `value`; what no output needs is left out", () => {
    const graph = trace({ x: f32(2) }, ({ x }) => {
      neg(x);
      return exp(x);
    });
    expect(Object.keys(graph.outputs)).toEqual(["value"]);
    expect(names(graph)).toEqual(["exp"]);
  });

  test("an output may be an input, a constant, or the same tensor as another", () => {
    const graph = trace({ x: f32(2), y: f32(2) }, ({ x }) => {
      const two = constant(2);
      return { x, two, again: two };
    });
    expect(names(graph)).toEqual(["constant"]);
    const data = Float64Array.of(3, 4);
    const results = evaluate(graph, { x: { shape: [2], data }, y: { shape: [2], data } });
    expect([...(results.x?.data ?? [])]).toEqual([3, 4]);
    expect([...(results.again?.data ?? [])]).toEqual([2]);
  });

  test("what does not return tensors is refused", () => {
    const nothing = (() => undefined) as unknown as () => Tensor;
    const promise = (async () => constant(1)) as unknown as () => Tensor;
    const none = new GraphError("trace: expected the function to return a tensor or a record of tensors, got none");
    expect(() => trace({}, nothing)).toThrow(none);
    expect(() => trace({}, promise)).toThrow(none);
    expect(() => trace({}, () => ({}))).toThrow(none);
    const wrong = (() => ({ loss: 3 })) as unknown as () => Tensor;
    expect(() => trace({}, wrong)).toThrow(new GraphError('trace: output "loss" is not a tensor'));
  });
});

describe("errors while tracing", () => {
  test.each([
    [
      "matmul: inner sizes differ, expected [.., 8] x [8, ..], got [T,8] x [7,4]",
      () => trace({ x: f32("T", 8), w: f32(7, 4) }, ({ x, w }) => matmul(x, w)),
    ],
    [
      "add: shapes do not broadcast, got [T,8] and [P,8]",
      () => trace({ x: f32("T", 8), y: f32("P", 8) }, ({ x, y }) => add(x, y)),
    ],
    [
      "reshape: expected 8*T elements for [T,8], got 64 in [64]",
      () => trace({ x: f32("T", 8) }, ({ x }) => reshape(x, [64])),
    ],
    [
      "rmsNorm: weight must be [M] = [8], got [4]",
      () => trace({ x: f32(2, 8), w: f32(4) }, ({ x, w }) => rmsNorm(x, w)),
    ],
    [
      "swiglu: up must be [2,8] like gate, got [2,4]",
      () => trace({ x: f32(2, 8), y: f32(2, 4) }, ({ x, y }) => swiglu(x, y)),
    ],
    ["sum: expected an axis from -2 to 1, got 2", () => trace({ x: f32(2, 8) }, ({ x }) => sum(x, { axes: [2] }))],
    ["reshape: sizes must be >= 0, got [2,-1]", () => trace({ x: f32(2, 8) }, ({ x }) => reshape(x, [2, -1]))],
    ["sizes must be >= 0, got [-2]", () => f32(-2)],
  ])("%s", (message, run) => {
    const error = thrown(run);
    expect(error).toBeInstanceOf(ShapeError);
    expect(error.message).toBe(message);
  });

  test("the stack leads to the line that is wrong, through helpers and composites", () => {
    const caller = ({ x, w }: { x: Tensor; w: Tensor }) => linear(x, w);
    for (const program of [caller, ({ x, w }: { x: Tensor; w: Tensor }) => rmsNorm(x, w)]) {
      const { stack = "" } = thrown(() => trace({ x: f32(2, 8), w: f32(4, 7) }, program));
      expect(stack.split("\n").some((line) => line.includes("graph.test.ts"))).toBe(true);
    }
  });

  test("wrong kinds and missing tensors are told by name", () => {
    const ids = { x: f32(2), ids: i32(2), mask: bool(2) };
    const asFloat = (tensor: AnyTensor) => tensor as Tensor;
    expect(() => trace(ids, ({ x, ids }) => add(x, asFloat(ids)))).toThrow(
      "add: dtypes differ, got float32[2] and int32[2]; cast one of them",
    );
    expect(() => trace(ids, ({ mask }) => exp(asFloat(mask)))).toThrow("exp: x must be float, got bool[2]");
    const missing = undefined as unknown as Tensor;
    expect(() => trace(ids, ({ x }) => matmul(x, missing))).toThrow(new GraphError('matmul: input "b" is missing'));
    expect(() => trace(ids, ({ x }) => add(x, [1, 2] as unknown as Tensor))).toThrow(
      new GraphError('add: input "b" is not a tensor'),
    );
  });

  test("a tensor of another trace is refused, whether it is an input there or made of one", () => {
    const foreign: Tensor[] = [];
    trace({ weight: f32(2) }, ({ weight }) => {
      foreign.push(weight, exp(weight));
      return weight;
    });
    for (const tensor of foreign) {
      expect(() => trace({ x: f32(2) }, ({ x }) => add(x, tensor))).toThrow(
        new GraphError('input "weight" belongs to another trace; pass it in as an input of this graph'),
      );
    }
  });

  test("a trace within a trace keeps its tensors to itself", () => {
    let inner: Graph | undefined;
    const outer = trace({ x: f32(2) }, ({ x }) => {
      inner = trace({ y: f32(3) }, ({ y }) => neg(y));
      return exp(x);
    });
    expect(names(outer)).toEqual(["exp"]);
    expect(inner && names(inner)).toEqual(["neg"]);
    const leaking = () =>
      trace({ x: f32(2) }, ({ x }) => {
        trace({ y: f32(2) }, ({ y }) => add(x, y));
        return x;
      });
    expect(leaking).toThrow('input "x" belongs to another trace');
  });

  test("a dim that no input has cannot be bound by anybody", () => {
    expect(() => trace({ x: f32("T") }, () => iota("N"))).toThrow(
      'verify: node iota: dim "N" is in the shape of no input, so nothing can bind it',
    );
  });
});

describe("bind", () => {
  const graph = trace({ x: f32("B", dim("P").plus("T")), t: f32("T") }, ({ x, t }) => ({
    tail: slice(x, { axis: 1, start: "P" }),
    flat: reshape(x, [dim("B").times(dim("P").plus("T"))]),
    places: iota(dim("T").ceilDiv(4)),
    t,
  }));

  test("replaces symbols in inputs, outputs and attributes, and leaves the graph as it was", () => {
    const before = String(graph);
    const bound = graph.bind({ B: 2, P: 3, T: 5 });
    verify(bound);
    const shapes = Object.entries(bound.outputs).map(([name, { shape }]) => name + shapeText(shape));
    expect(shapes).toEqual(["tail[2,5]", "flat[16]", "places[2]", "t[5]"]);
    expect([...bound.symbols]).toEqual([]);
    expect(String(graph)).toBe(before);
  });

  test("may be done in steps, and to size 0", () => {
    expect(String(graph.bind({ T: 5 }).bind({ B: 2, P: 3 }))).toBe(String(graph.bind({ B: 2, P: 3, T: 5 })));
    expect([...graph.bind({ T: 5 }).symbols]).toEqual(["B", "P"]);
    const empty = graph.bind({ B: 0, P: 0, T: 0 });
    verify(empty);
    expect(shapeText(empty.outputs.flat?.shape ?? [])).toBe("[0]");
  });

  test("refuses unknown names, and sizes that are not sizes", () => {
    expect(() => graph.bind({ N: 3 })).toThrow(new GraphError('bind: no dim is named "N"; this graph has B, P, T'));
    expect(() => trace({ x: f32(2) }, ({ x }) => x).bind({ T: 1 })).toThrow("this graph has none");
    expect(() => graph.bind({ T: 1.5 })).toThrow("dim: expected a whole number, got 1.5");
    expect(() => graph.bind({ T: -1 })).toThrow(new ShapeError("input: sizes must be >= 0, got [-1]"));
  });

  test("sizes that do not fit are told by the operation", () => {
    const needs = trace({ x: f32("T") }, ({ x }) => slice(x, { axis: 0, start: 0, end: 4 }));
    expect(() => needs.bind({ T: 3 })).toThrow(
      new ShapeError("slice: expected 0 <= start <= end <= 3, got start 0 and end 4 on axis 0"),
    );
    const shorter = trace({ x: f32("T") }, () => iota(dim("T").minus(2)));
    expect(() => shorter.bind({ T: 1 })).toThrow(new ShapeError("iota: sizes must be >= 0, got [-1]"));
  });
});

describe("rewrite", () => {
  const graph = trace({ x: f32(4), y: f32(4) }, ({ x, y }) => ({ sum: add(exp(x), neg(y)), x, twice: mul(exp(x), 2) }));

  test("a rule that changes nothing gives the same nodes", () => {
    expect(rewrite(graph, rebuild).nodes).toEqual(graph.nodes);
  });

  test("new tensors take the place of old ones, down to outputs; inputs that are outputs stay", () => {
    const swapped = rewrite(graph, (node, inputs) => {
      const { x } = inputs;
      return node.op.name === "neg" && x ? { value: exp(x as Tensor) } : rebuild(node, inputs);
    });
    verify(swapped);
    expect(names(swapped)).toEqual(["exp", "exp", "add", "exp", "constant", "mul"]);
    expect(swapped.outputTensors.x).toBe(swapped.inputTensors.x);
    const shortcut = rewrite(graph, (node, inputs) =>
      node.op.name === "exp" && inputs.x ? { value: inputs.x } : rebuild(node, inputs),
    );
    verify(shortcut);
    expect(names(shortcut)).toEqual(["neg", "add", "constant", "mul"]);
  });

  test("nodes stay in their order, whether they had to be built again or not", () => {
    const original = trace({ x: f32(4), y: f32(4) }, ({ x, y }) => {
      const a = exp(x);
      const b = neg(a);
      const c = exp(y);
      return { b, d: add(b, c), e: neg(c) };
    });
    const changed = rewrite(original, (node, inputs) => {
      const isFirst = node === original.nodes[0];
      return isFirst && inputs.x ? { value: mul(inputs.x as Tensor, 3) } : rebuild(node, inputs);
    });
    expect(names(changed)).toEqual(["constant", "mul", "neg", "exp", "add", "neg"]);
    expect(names(rewrite(changed, rebuild))).toEqual(names(changed));
  });

  test("a rule must keep dtype and shape, and give what is read", () => {
    const wrong = (replacement: AnyTensor) => () =>
      rewrite(graph, (node, inputs) => (node.op.name === "neg" ? { value: replacement } : rebuild(node, inputs)));
    expect(wrong(constant(new Float32Array(3)))).toThrow(
      new GraphError("rewrite: neg gives float32[4], what takes its place float32[3]"),
    );
    expect(wrong(constant(new Int32Array(4), "int32"))).toThrow("what takes its place int32[4]");
    expect(() => rewrite(graph, (node, inputs) => (node.op.name === "neg" ? {} : rebuild(node, inputs)))).toThrow(
      new GraphError("rewrite: float32[4] of neg is missing"),
    );
    expect(wrong(inputTensor("z", f32(4)))).toThrow('input "z" belongs to another trace');
  });
});

test("operations of another copy of the package work on tensors of this one", async () => {
  vi.resetModules();
  const copy = await import("../index.ts");
  expect(copy.trace).not.toBe(trace);
  // The other copy has made fewer nodes, so its own count is behind.
  const graph = trace({ x: f32("T", 4), w: f32(4) }, ({ x, w }) => {
    const own = exp(mul(x, 2));
    const foreign = copy.rmsNorm(copy.silu(own), w);
    return sum(mul(foreign, own));
  });
  const bound = copy.simplify(copy.valueAndGrad(graph, { wrt: ["x", "w"] })).bind({ T: 3 });
  verify(bound);
  copy.verify(bound);
  expect(
    copy
      .dim("T")
      .plus(dim("P"))
      .equals(dim("P").plus(copy.dim("T"))),
  ).toBe(true);

  const inputs = {
    x: { shape: [3, 4], data: Float64Array.from({ length: 12 }, (_, index) => Math.sin(index)) },
    w: { shape: [4], data: Float64Array.of(1, 2, 3, 4) },
  };
  const ours = evaluate(bound, inputs);
  const theirs = copy.evaluate(bound, inputs);
  expect(ours["grad.w"]?.data).toEqual(theirs["grad.w"]?.data);
});
