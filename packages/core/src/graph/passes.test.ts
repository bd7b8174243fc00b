import { describe, expect, test } from "vitest";
import { valueAndGrad } from "../autodiff/value-and-grad.ts";
import { elementsOf, sizeOf } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { add } from "../ops/add.ts";
import { argmax } from "../ops/argmax.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { cast } from "../ops/cast.ts";
import { constant } from "../ops/constant.ts";
import { crossEntropy } from "../ops/cross-entropy.ts";
import { dimSize } from "../ops/dim-size.ts";
import { exp } from "../ops/exp.ts";
import { gather } from "../ops/gather.ts";
import { linear } from "../ops/linear.ts";
import { matmul } from "../ops/matmul.ts";
import { mean } from "../ops/mean.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm, rmsNormOp } from "../ops/rms-norm.ts";
import { silu } from "../ops/silu.ts";
import { softmax } from "../ops/softmax.ts";
import { sum } from "../ops/sum.ts";
import { swiglu } from "../ops/swiglu.ts";
import { takeRow } from "../ops/take-row.ts";
import { tanh } from "../ops/tanh.ts";
import { RandomStream } from "../random.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32, i32 } from "../spec.ts";
import { type Graph, trace } from "./graph.ts";
import { apply, applyOp, defineComposite, definePrimitive, type NdArray } from "./op.ts";
import {
  eliminateCommonSubexpressions,
  expandComposites,
  foldConstants,
  pickOutputs,
  rematerialize,
  simplify,
} from "./passes.ts";
import type { AnyTensor, Node, Tensor } from "./tensor.ts";
import { verify } from "./verify.ts";

const names = (graph: Graph) => graph.nodes.map((node) => node.op.name);

/** Values for a graph's inputs, in a range where everything is finite; whole numbers from 0 to 2. */
function inputsFor(graph: Graph): { readonly [name: string]: NdArray } {
  return Object.fromEntries(
    Object.entries(graph.inputs).map(([name, { dtype, shape }]) => {
      const random = new RandomStream(1, name);
      const size = sizeOf(elementsOf(shape));
      const data =
        dtype === "int32"
          ? Int32Array.from({ length: size }, (_, index) => random.below(3, index))
          : Float64Array.from(random.uniforms(size, { low: -1, high: 1 }));
      return [name, { shape: shape.map(sizeOf), data }];
    }),
  );
}

/** Both graphs are well formed and compute the same outputs, bit for bit unless told otherwise. */
function expectSame(after: Graph, before: Graph, relative = 0): void {
  verify(after);
  const inputs = inputsFor(before);
  const expected = evaluate(before, inputs);
  const found = evaluate(after, inputs);
  expect(Object.keys(found)).toEqual(Object.keys(expected));
  for (const [name, { data, shape }] of Object.entries(expected)) {
    expect(found[name]?.shape).toEqual(shape);
    if (relative === 0) expect(found[name]?.data).toEqual(data);
    else {
      const difference = data.map((value, index) => Math.abs(value - (found[name]?.data[index] ?? Number.NaN)));
      expect(Math.max(0, ...difference)).toBeLessThanOrEqual(relative * Math.max(0, ...data.map(Math.abs)));
    }
  }
}

/** The most elements that are held at once when nodes run in order and values are let go after their last reader. */
function peakLiveElements(graph: Graph): number {
  const lastReader = new Map<AnyTensor, number>();
  graph.nodes.forEach((node, index) => {
    for (const tensor of Object.values(node.inputs)) lastReader.set(tensor, index);
  });
  for (const tensor of Object.values(graph.outputTensors)) lastReader.set(tensor, Number.POSITIVE_INFINITY);
  const inputs = new Set(Object.values(graph.inputTensors));
  const size = (tensor: AnyTensor) => sizeOf(elementsOf(tensor.shape));
  let live = 0;
  let peak = 0;
  graph.nodes.forEach((node, index) => {
    for (const tensor of Object.values(node.outputs)) live += size(tensor);
    peak = Math.max(peak, live);
    const done = new Set([...Object.values(node.inputs), ...Object.values(node.outputs)]);
    for (const tensor of done) {
      if (!inputs.has(tensor) && (lastReader.get(tensor) ?? index) <= index) live -= size(tensor);
    }
  });
  return peak;
}

describe("expandComposites", () => {
  const graph = trace({ x: f32("T", 4), w: f32(4) }, ({ x, w }) => rmsNorm(silu(x), w));

  test("replaces what it is asked to", () => {
    const expanded = expandComposites(graph, (op) => op.name === "silu");
    expect(String(expanded)).toMatchInlineSnapshot(`
      "graph(x: float32[T,4], w: float32[4]) {
        %0 = sigmoid(x)                        : float32[T,4]
        %1 = mul(x, %0)                        : float32[T,4]
        %2 = rmsNorm(%1, w) {epsilon=0.000001} : float32[T,4]
      } -> value: float32[T,4] = %2"
    `);
    expectSame(expanded.bind({ T: 3 }), graph.bind({ T: 3 }));
  });

  test("goes all the way down, and is told the node", () => {
    const nested = trace({ a: f32(2, 4), b: f32(2, 4) }, ({ a, b }) => add(swiglu(a, b), silu(b)));
    const all = expandComposites(nested, () => true);
    expect(names(all)).toEqual(["sigmoid", "mul", "mul", "sigmoid", "mul", "add"]);
    expectSame(all, nested);
    const [first] = nested.nodes;
    expect(names(expandComposites(nested, (_, node) => node === first))).toEqual(["silu", "mul", "silu", "add"]);
    expect(expandComposites(nested, () => false)).toBe(nested);
  });

  test("what stays keeps its place", () => {
    const mixed = trace({ x: f32(4), y: f32(4) }, ({ x, y }) => {
      const first = silu(x);
      const second = exp(y);
      return add(silu(first), neg(second));
    });
    expect(names(expandComposites(mixed, () => true))).toEqual([
      "sigmoid",
      "mul",
      "exp",
      "sigmoid",
      "mul",
      "neg",
      "add",
    ]);
  });

  test("a composite may give back its input, or several outputs of which some are not needed", () => {
    const sameOp = defineComposite<
      "acme/same",
      { readonly x: Tensor },
      Record<string, never>,
      { value: Tensor; other: Tensor }
    >({
      name: "acme/same",
      inputs: ["x"],
      compose: ({ x }) => ({ value: x, other: exp(x) }),
    });
    const same = trace({ x: f32(2) }, ({ x }) => apply(sameOp, { x }, {}).value);
    const expanded = expandComposites(same, () => true);
    expect(expanded.nodes).toEqual([]);
    expectSame(expanded, same);
  });

  test("a composition that changes its mind is refused", () => {
    let calls = 0;
    const fickleOp = defineComposite<"acme/fickle", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/fickle",
      inputs: ["x"],
      compose: ({ x }) => ({ value: calls++ < 2 ? exp(x) : sum(x) }),
    });
    const fickle = trace({ x: f32(2) }, ({ x }) => apply(fickleOp, { x }, {}).value);
    expect(() => expandComposites(fickle, () => true)).toThrow(
      new GraphError("rewrite: acme/fickle gives float32[2], what takes its place float32[]"),
    );
  });
});

describe("eliminateCommonSubexpressions", () => {
  test("merges equal nodes, whole chains of them", () => {
    const graph = trace({ x: f32("T", 4) }, ({ x }) => {
      const chain = () => mul(exp(add(x, 1)), 2);
      return { a: chain(), b: neg(chain()), c: mean(x), d: mean(x) };
    });
    const merged = eliminateCommonSubexpressions(graph);
    expect(String(graph)).toMatchInlineSnapshot(`
      "graph(x: float32[T,4]) {
        %0 = add(x, 1)                  : float32[T,4]
        %1 = exp(%0)                    : float32[T,4]
        %2 = mul(%1, 2)                 : float32[T,4]
        %3 = add(x, 1)                  : float32[T,4]
        %4 = exp(%3)                    : float32[T,4]
        %5 = mul(%4, 2)                 : float32[T,4]
        %6 = neg(%5)                    : float32[T,4]
        %7 = sum(x) {axes=[0,1]}        : float32[]
        %8 = dimSize(x) {axis=0}        : int32[]
        %9 = cast(%8) {dtype=float32}   : float32[]
        %10 = mul(4, %9)                : float32[]
        %11 = div(%7, %10)              : float32[]
        %12 = sum(x) {axes=[0,1]}       : float32[]
        %13 = dimSize(x) {axis=0}       : int32[]
        %14 = cast(%13) {dtype=float32} : float32[]
        %15 = mul(4, %14)               : float32[]
        %16 = div(%12, %15)             : float32[]
      } -> a: float32[T,4] = %2, b: float32[T,4] = %6, c: float32[] = %11, d: float32[] = %16"
    `);
    expect(String(merged)).toMatchInlineSnapshot(`
      "graph(x: float32[T,4]) {
        %0 = add(x, 1)                : float32[T,4]
        %1 = exp(%0)                  : float32[T,4]
        %2 = mul(%1, 2)               : float32[T,4]
        %3 = neg(%2)                  : float32[T,4]
        %4 = sum(x) {axes=[0,1]}      : float32[]
        %5 = dimSize(x) {axis=0}      : int32[]
        %6 = cast(%5) {dtype=float32} : float32[]
        %7 = mul(4, %6)               : float32[]
        %8 = div(%4, %7)              : float32[]
      } -> a: float32[T,4] = %2, b: float32[T,4] = %3, c: float32[] = %8, d: float32[] = %8"
    `);
    expectSame(merged.bind({ T: 3 }), graph.bind({ T: 3 }));
    expect(merged.outputTensors.c).toBe(merged.outputTensors.d);
  });

  test("merges composites with all their outputs", () => {
    const graph = trace({ logits: f32(2, 5), targets: i32(2) }, ({ logits, targets }) => {
      const first = crossEntropy({ logits, targets }).node.outputs;
      const second = crossEntropy({ logits, targets }).node.outputs;
      expect.assert(first.value && first.logSumExp && second.value && second.logSumExp);
      return { a: first.value, b: second.logSumExp, c: second.value, d: first.logSumExp };
    });
    const merged = eliminateCommonSubexpressions(graph);
    expect(names(merged)).toEqual(["crossEntropy"]);
    expectSame(merged, graph);
  });

  test.each<[string, (x: Tensor, y: Tensor) => { readonly [name: string]: AnyTensor }]>([
    ["other operations", (x) => ({ a: exp(x), b: neg(x) })],
    ["other inputs", (x, y) => ({ a: exp(x), b: exp(y) })],
    ["inputs in another order", (x, y) => ({ a: add(x, y), b: add(y, x) })],
    ["other attributes", (x) => ({ a: sum(x, { axes: [0] }), b: sum(x, { axes: [1] }) })],
    [
      "other numbers",
      (x) => ({
        a: rmsNorm(x, reshape(sum(x, { axes: [0] }), [3])),
        b: apply(rmsNormOp, { x, weight: sum(x, { axes: [0] }) }, { epsilon: 1e-5 }).value,
      }),
    ],
    ["other sizes", (x) => ({ a: reshape(x, [9, 1]), b: reshape(x, [1, 9]) })],
    ["other constants", () => ({ a: constant(1), b: constant(2) })],
    ["constants of other dtypes", () => ({ a: constant(1), b: constant(1, "int32") })],
    ["zeros of other signs", () => ({ a: constant(0), b: constant(-0) })],
    [
      "infinities and NaN",
      () => ({ a: constant(Number.POSITIVE_INFINITY), b: constant(Number.NEGATIVE_INFINITY), c: constant(Number.NaN) }),
    ],
    [
      "constants of other shapes",
      () => ({ a: constant(new Float32Array(4), "float32", [2, 2]), b: constant(new Float32Array(4)) }),
    ],
    ["large constants", () => ({ a: constant(new Float32Array(99)), b: constant(new Float32Array(99).fill(1)) })],
    ["another tag", (x) => ({ a: exp(x), b: applyOp(exp(x).node.op, { x }, {}, "again").value ?? x })],
  ])("keeps apart what has %s", (_, program) => {
    const graph = trace({ x: f32(3, 3), y: f32(3, 3) }, ({ x, y }) => program(x, y));
    const merged = eliminateCommonSubexpressions(graph);
    const outputs = Object.values(merged.outputTensors);
    expect(new Set(outputs).size).toBe(outputs.length);
    expectSame(merged, graph);
  });

  test("keeps apart operations that only share a name", () => {
    const define = (factor: number) =>
      definePrimitive<"acme/scale", { readonly x: Tensor }, Record<string, never>>({
        name: "acme/scale",
        inputs: ["x"],
        infer: ({ x }) => ({ value: x }),
        reference: ({ x }, _attributes, { value }) => value.data.set(x.data.map((element) => element * factor)),
        vjp: { reason: "it is a test" },
      });
    const graph = trace({ x: f32(2) }, ({ x }) => ({
      a: apply(define(2), { x }, {}).value,
      b: apply(define(3), { x }, {}).value,
    }));
    expectSame(eliminateCommonSubexpressions(graph), graph);
  });

  test("merges large constants that are one array, seen at the same place", () => {
    const table = Float32Array.from({ length: 100 }, (_, index) => index);
    const graph = trace({}, () => ({
      a: constant(table),
      b: constant(table),
      c: constant(table.subarray(0, 90)),
      d: constant(table.subarray(10, 100)),
    }));
    expect(names(eliminateCommonSubexpressions(graph))).toEqual(["constant", "constant", "constant"]);
    expectSame(eliminateCommonSubexpressions(graph), graph);
  });

  test("merges equal nodes of the same tag", () => {
    const graph = trace({ x: f32(2) }, ({ x }) => {
      const again = () => applyOp(exp(x).node.op, { x }, {}, "again").value as Tensor;
      return add(again(), again());
    });
    expect(names(eliminateCommonSubexpressions(graph))).toEqual(["exp", "add"]);
  });

  test("does not merge what is overwritten, nor what overwrites", () => {
    const graph = trace({ u: f32(2, 1, 3), v: f32(2, 1, 3), start: i32(2) }, ({ u, v, start }) => {
      const empty = () => broadcastTo(constant(0), [2, 4, 3]) as Tensor;
      return {
        key: cacheWrite(empty(), u, start),
        value: cacheWrite(empty(), v, start),
        same: cacheWrite(empty(), u, start),
      };
    });
    const merged = eliminateCommonSubexpressions(graph);
    expect(names(merged).filter((name) => name === "broadcastTo")).toHaveLength(3);
    expect(names(merged).filter((name) => name === "cacheWrite")).toHaveLength(3);
    expectSame(merged, graph);
    expectSame(simplify(graph), graph);
  });

  test("two gradients of one shape that write rows into zeros stay apart", () => {
    const graph = trace({ x: f32(2, 4, 3), y: f32(2, 4, 3), row: i32(2) }, ({ x, y, row }) =>
      sum(mul(takeRow(x, row), takeRow(y, row))),
    );
    const step = valueAndGrad(graph, { wrt: ["x", "y"] });
    expectSame(simplify(step), step);
  });
});

describe("foldConstants", () => {
  test("computes what depends on constants alone", () => {
    const graph = trace({ x: f32(3) }, ({ x }) => {
      const table = constant(Float32Array.of(1, 2, 3));
      return add(x, mul(exp(neg(table)), constant(2)));
    });
    expect(String(foldConstants(graph))).toMatchInlineSnapshot(`
      "graph(x: float32[3]) {
        %0 = constant() {spec=float32[3], data=[0.7357589,0.27067056,0.099574134]} : float32[3]
        %1 = add(x, %0)                                                          : float32[3]
      } -> value: float32[3] = %1"
    `);
    expectSame(foldConstants(graph), graph, 1e-7);
  });

  test("rounds every step to its dtype, as the reference does", () => {
    const graph = trace({ x: f32() }, ({ x }) => mul(x, exp(mul(constant(0.1), constant(3)))));
    const inputs = { x: { shape: [], data: Float64Array.of(1) } };
    expect(evaluate(foldConstants(graph), inputs, "rounded")).toEqual(evaluate(graph, inputs, "rounded"));
    const narrow = trace({}, () => cast(constant(0.1, "bfloat16"), "float32"));
    expect(evaluate(foldConstants(narrow), {}, "rounded").value?.data).toEqual(Float64Array.of(0.10009765625));
  });

  test("keeps whole numbers, truth values and hostile numbers", () => {
    const graph = trace({}, () => {
      const numbers = constant(Float32Array.of(Number.NaN, -0, Number.POSITIVE_INFINITY, 1e-45));
      return {
        negated: neg(numbers),
        place: argmax(constant(Float32Array.of(1, 5, 2))),
        ids: add<"int">(constant(Int32Array.of(1, 2), "int32"), 3),
      };
    });
    const folded = foldConstants(graph);
    expect(new Set(names(folded))).toEqual(new Set(["constant"]));
    expectSame(folded, graph);
  });

  test("is bounded in size, does not write out broadcasts, and leaves what is not bound", () => {
    const graph = trace({ x: f32("T") }, ({ x }) => {
      const zero = constant(0);
      return {
        table: neg(constant(new Float32Array(65_536))),
        hugeTable: neg(constant(new Float32Array(65_537))),
        broadcast: broadcastTo(zero, [16, 16]),
        largeBroadcast: broadcastTo(zero, [16, 17]),
        open: broadcastTo(zero, ["T"]),
        emptyOpen: broadcastTo(zero, [0, "T"]),
        x,
      };
    });
    const folded = foldConstants(graph);
    expect(Object.entries(folded.outputTensors).map(([name, { node }]) => [name, node.op.name])).toEqual([
      ["table", "constant"],
      ["hugeTable", "neg"],
      ["broadcast", "constant"],
      ["largeBroadcast", "broadcastTo"],
      ["open", "broadcastTo"],
      ["emptyOpen", "broadcastTo"],
      ["x", "input"],
    ]);
    expectSame(folded.bind({ T: 2 }), graph.bind({ T: 2 }));
  });

  test("does nothing to nodes with zero elements that it would not do to others", () => {
    const graph = trace({}, () => ({
      empty: neg(constant(new Float32Array(0))),
      total: sum(constant(new Float32Array(0), "float32", [0, 3]), { axes: [0] }),
      shaped: broadcastTo(constant(new Float32Array(0), "float32", [0, 1]), [0, 4]),
    }));
    const folded = foldConstants(graph);
    expect(new Set(names(folded))).toEqual(new Set(["constant"]));
    expectSame(folded, graph);
  });

  test("computes sizes once they are bound, whatever has them", () => {
    const graph = trace({ x: f32("T", 4) }, ({ x }) => {
      const length = dimSize(exp(x), 0);
      return { length, twice: add<"int">(length, dimSize(x, 1)), mean: mean(x) };
    });
    expect(names(foldConstants(graph))).toContain("dimSize");
    const bound = graph.bind({ T: 3 });
    expect(String(foldConstants(bound))).toMatchInlineSnapshot(`
      "graph(x: float32[3,4]) {
        %0 = sum(x) {axes=[0,1]} : float32[]
        %1 = div(%0, 12)         : float32[]
      } -> length: int32[] = 3, twice: int32[] = 7, mean: float32[] = %1"
    `);
    expectSame(foldConstants(bound), bound);
  });

  test("leaves composites, and nodes without inputs", () => {
    const graph = trace({}, () => softmax(constant(Float32Array.of(1, 2))));
    expect(names(foldConstants(graph))).toEqual(["constant", "softmax"]);
    expect(names(foldConstants(expandComposites(graph, () => true)))).toEqual(["constant"]);
  });

  test("a constant that cannot be computed is an error while compiling", () => {
    const graph = trace({}, () => gather(constant(Float32Array.of(1, 2)), constant(Int32Array.of(5), "int32")));
    expect(() => foldConstants(graph)).toThrow("gather: expected ids from 0 to 1, got 5");
  });
});

describe("pickOutputs", () => {
  const graph = trace({ x: f32(2), y: f32(2), z: f32(2) }, ({ x, y, z }) => ({ a: exp(x), b: add(exp(y), neg(x)), z }));

  test("keeps only what is needed", () => {
    const picked = pickOutputs(graph, ["b"]);
    verify(picked);
    expect(Object.keys(picked.inputs)).toEqual(["x", "y"]);
    expect(names(picked)).toEqual(["exp", "neg", "add"]);
    expect(Object.keys(pickOutputs(graph, ["b"], { keepInputs: true }).inputs)).toEqual(["x", "y", "z"]);
  });

  test("outputs may be inputs, and come in the order asked for", () => {
    const picked = pickOutputs(graph, ["z", "a"]);
    expect(Object.keys(picked.inputs)).toEqual(["x", "z"]);
    expect(Object.keys(picked.outputs)).toEqual(["z", "a"]);
    expect(picked.outputTensors.z).toBe(picked.inputTensors.z);
  });

  test("an unknown name is told", () => {
    expect(() => pickOutputs(graph, ["loss"])).toThrow(
      new GraphError('no output is named "loss"; this graph has a, b, z'),
    );
  });
});

describe("simplify", () => {
  test("folds, merges and drops what is dead, in one go", () => {
    const graph = trace({ x: f32(4, 4) }, ({ x }) => {
      const scale = () => exp(neg(constant(1)));
      return mul(mul(silu(x), scale()), add(silu(x), scale()));
    });
    expect(String(simplify(graph))).toMatchInlineSnapshot(`
      "graph(x: float32[4,4]) {
        %0 = silu(x)             : float32[4,4]
        %1 = mul(%0, 0.36787945) : float32[4,4]
        %2 = add(%0, 0.36787945) : float32[4,4]
        %3 = mul(%1, %2)         : float32[4,4]
      } -> value: float32[4,4] = %3"
    `);
    expectSame(simplify(graph), graph, 1e-7);
  });

  test("a second time changes nothing", () => {
    const graph = valueAndGrad(
      trace({ x: f32("T", 4), w: f32(4, 4), n: f32(4) }, ({ x, w, n }) => mean(softmax(linear(rmsNorm(x, n), w)))),
      { wrt: ["w", "n"] },
    );
    const once = simplify(graph);
    expect(String(simplify(once))).toBe(String(once));
    expectSame(once.bind({ T: 3 }), graph.bind({ T: 3 }), 1e-6);
  });
});

describe("rematerialize", () => {
  const layers = 12;
  /** Linear layers with elementwise work between them and a residual stream, as in a language model. */
  const chain = trace({ x: f32(64, 8), w: f32(layers, 8, 8) }, ({ x, w }) => {
    let h = x;
    for (let layer = 0; layer < layers; layer++) {
      const weight = reshape(gather(w, constant(layer, "int32")), [8, 8]);
      const y = linear(h, weight);
      h = add(h, tanh(mul(exp(mul(tanh(y), 0.5)), silu(y))));
    }
    return mean(mul(h, h));
  });
  const step = simplify(valueAndGrad(chain, { wrt: ["w"] }));
  const isElementwise = (node: Node) => node.op.elementwise === true;
  /** The residual stream is kept, so that each layer is computed again from where it begins. */
  const withinLayers = (node: Node) => isElementwise(node) && node.op.name !== "add";

  test("cheap values are computed again, the gradients stay the same, and less is held", () => {
    const again = rematerialize(step, { policy: withinLayers, boundary: "value" });
    expectSame(again, step);
    expect(again.nodes.length).toBeGreaterThan(step.nodes.length);
    expect(peakLiveElements(again)).toBeLessThan(0.6 * peakLiveElements(step));
  });

  test("merging does not undo it", () => {
    const again = rematerialize(step, { policy: withinLayers, boundary: "value" });
    const simplified = simplify(again);
    expectSame(simplified, step);
    expect(peakLiveElements(simplified)).toBe(peakLiveElements(again));
    expect(simplified.nodes.filter(({ tag }) => tag === "rematerialize").length).toBeGreaterThan(3 * layers);
  });

  test("merging does not undo it where composites are expanded", () => {
    const attended = trace({ x: f32(2, 3), w: f32(3, 3) }, ({ x, w }) => sum(tanh(matmul(softmax(x), w))));
    const again = rematerialize(simplify(valueAndGrad(attended, { wrt: ["w"] })), {
      policy: ({ op }) => op.name === "softmax",
      boundary: "value",
    });
    const expanded = simplify(expandComposites(again, () => true));
    const tags = expanded.nodes.flatMap(({ op, tag }) => (op.name === "exp" ? [tag] : []));
    expect(tags).toEqual([undefined, "rematerialize"]);
    expectSame(expanded, again);
  });

  test("clones stand before their first reader and carry a tag", () => {
    const small = trace({ x: f32(2, 3), w: f32(3, 3) }, ({ x, w }) => sum(exp(tanh(matmul(x, w)))));
    const graph = simplify(valueAndGrad(small, { wrt: ["w"] }));
    const again = rematerialize(graph, { policy: isElementwise, boundary: "value" });
    expect(String(graph)).toMatchInlineSnapshot(`
      "graph(x: float32[2,3], w: float32[3,3]) {
        %0 = matmul(x, w)                                         : float32[2,3]
        %1 = tanh(%0)                                             : float32[2,3]
        %2 = exp(%1)                                              : float32[2,3]
        %3 = sum(%2) {axes=[0,1]}                                 : float32[]
        %4 = constant() {spec=float32[2,3], data=[1,1,1,1,... 6]} : float32[2,3]
        %5 = mul(%4, %2)                                          : float32[2,3]
        %6 = mul(%1, %1)                                          : float32[2,3]
        %7 = sub(1, %6)                                           : float32[2,3]
        %8 = mul(%5, %7)                                          : float32[2,3]
        %9 = matmul(x, %8) {transposeA=true}                      : float32[3,3]
      } -> value: float32[] = %3, grad.w: float32[3,3] = %9"
    `);
    expect(String(again)).toMatchInlineSnapshot(`
      "graph(x: float32[2,3], w: float32[3,3]) {
        %0 = matmul(x, w)                                         : float32[2,3]
        %1 = tanh(%0)                                             : float32[2,3]
        %2 = exp(%1)                                              : float32[2,3]
        %3 = sum(%2) {axes=[0,1]}                                 : float32[]
        %4 = constant() {spec=float32[2,3], data=[1,1,1,1,... 6]} : float32[2,3]
        %5 = tanh(%0) @rematerialize                              : float32[2,3]
        %6 = exp(%5) @rematerialize                               : float32[2,3]
        %7 = mul(%4, %6)                                          : float32[2,3]
        %8 = mul(%5, %5)                                          : float32[2,3]
        %9 = sub(1, %8)                                           : float32[2,3]
        %10 = mul(%7, %9)                                         : float32[2,3]
        %11 = matmul(x, %10) {transposeA=true}                    : float32[3,3]
      } -> value: float32[] = %3, grad.w: float32[3,3] = %11"
    `);
    expectSame(again, graph);
  });

  test("a policy that names nothing changes nothing", () => {
    const same = rematerialize(step, { policy: () => false, boundary: "value" });
    expect(same.nodes).toEqual(step.nodes);
  });

  test("a policy that names everything computes the forward pass again", () => {
    const again = rematerialize(step, { policy: () => true, boundary: "value" });
    expectSame(again, step);
    const readsForward = new Set(step.nodes.slice(0, step.nodes.indexOf(step.outputTensors.value?.node as Node) + 1));
    for (const node of again.nodes) {
      if (readsForward.has(node)) continue;
      for (const { node: read } of Object.values(node.inputs)) expect(readsForward.has(read)).toBe(false);
    }
  });

  test("the boundary may be an input, or the same node as another output", () => {
    const passed = trace({ x: f32(), y: f32() }, ({ x, y }) => ({ value: x, other: exp(exp(y)) }));
    expect(rematerialize(passed, { policy: () => true, boundary: "value" }).nodes).toEqual(passed.nodes);
    const shared = trace({ x: f32(2) }, ({ x }) => {
      const y = exp(x);
      return { value: y, again: y, later: neg(y) };
    });
    const again = rematerialize(shared, { policy: () => true, boundary: "value" });
    expectSame(again, shared);
    expect(names(again)).toEqual(["exp", "exp", "neg"]);
    expect(again.outputTensors.again).toBe(again.outputTensors.value);
  });

  test("values of different tags stay different", () => {
    const graph = trace({ x: f32(2) }, ({ x }) => {
      const first = exp(x);
      const second = applyOp(first.node.op, { x }, {}, "recompute").value as Tensor;
      return { value: sum(add(first, second)), product: mul(first, second) };
    });
    const again = rematerialize(graph, { policy: isElementwise, boundary: "value" });
    expect(again.nodes.map(({ tag }) => tag)).toEqual([
      undefined,
      "recompute",
      undefined,
      undefined,
      "rematerialize",
      "recompute, rematerialize",
      undefined,
    ]);
    expect(simplify(again).nodes).toHaveLength(7);
  });

  test("what reads or is a tensor that gets overwritten is never computed again", () => {
    const graph = trace({ x: f32(2, 1, 3), cache: f32(2, 4, 3), start: i32(2) }, ({ x, cache, start }) => {
      const scale = sum(exp(cache));
      const written = cacheWrite(cache, mul(x, scale), start);
      const value = sum(written);
      return { value, later: mul(neg(written), scale) };
    });
    const again = rematerialize(graph, { policy: () => true, boundary: "value" });
    expectSame(again, graph);
    expect(names(again).filter((name) => name === "cacheWrite")).toHaveLength(1);
    expect(names(again).filter((name) => name === "exp")).toHaveLength(1);
  });

  test("a chain of tens of thousands of nodes does not overflow the stack", () => {
    const deep = trace({ x: f32(2) }, ({ x }) => {
      let y = x;
      for (let index = 0; index < 20_000; index++) y = tanh(y);
      return sum(y);
    });
    const again = rematerialize(valueAndGrad(deep, { wrt: ["x"] }), { policy: isElementwise, boundary: "value" });
    expect(again.nodes.length).toBeGreaterThan(80_000);
  });

  test("an unknown boundary is told", () => {
    expect(() => rematerialize(step, { policy: () => true, boundary: "loss" })).toThrow(
      new GraphError('rematerialize: no output is named "loss"; this graph has value, grad.w'),
    );
  });
});

test("bound after passes is what passes give when bound before", () => {
  const graph = valueAndGrad(
    trace({ x: f32("T", 4), w: f32(4, 4) }, ({ x, w }) => {
      const y = softmax(linear(silu(x), w));
      return mean(mul(y, y));
    }),
    { wrt: ["w"] },
  );
  expectSame(simplify(graph).bind({ T: 3 }), simplify(graph.bind({ T: 3 })), 1e-6);
});
