import { describe, expect, test } from "vitest";
import { elementsOf, sizeOf } from "../dim.ts";
import { GraphError } from "../errors.ts";
import { Graph, trace } from "../graph/graph.ts";
import { apply, defineComposite, definePrimitive, type Gradients, type NdArray } from "../graph/op.ts";
import { eliminateCommonSubexpressions, expandComposites, foldConstants, simplify } from "../graph/passes.ts";
import type { AnyTensor, Tensor } from "../graph/tensor.ts";
import { verify } from "../graph/verify.ts";
import { adamw } from "../ops/adamw.ts";
import { add } from "../ops/add.ts";
import { argmax } from "../ops/argmax.ts";
import { attention } from "../ops/attention.ts";
import { cacheWrite } from "../ops/cache-write.ts";
import { cast } from "../ops/cast.ts";
import { crossEntropyOp } from "../ops/cross-entropy.ts";
import { div } from "../ops/div.ts";
import { exp } from "../ops/exp.ts";
import { floor } from "../ops/floor.ts";
import { gather } from "../ops/gather.ts";
import { globalNorm } from "../ops/global-norm.ts";
import { less } from "../ops/less.ts";
import { linear } from "../ops/linear.ts";
import { logSumExp } from "../ops/log-sum-exp.ts";
import { matmul } from "../ops/matmul.ts";
import { mean } from "../ops/mean.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { sigmoid } from "../ops/sigmoid.ts";
import { silu } from "../ops/silu.ts";
import { softmax } from "../ops/softmax.ts";
import { sub } from "../ops/sub.ts";
import { sum } from "../ops/sum.ts";
import { tanh } from "../ops/tanh.ts";
import { where } from "../ops/where.ts";
import { RandomStream } from "../random.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32, i32, specText, type TensorSpec } from "../spec.ts";
import { valueAndGrad } from "./value-and-grad.ts";

type Values = { readonly [name: string]: NdArray };

const scalar = (value: number): NdArray => ({ shape: [], data: Float64Array.of(value) });
const vector = (...values: readonly number[]): NdArray => ({ shape: [values.length], data: Float64Array.from(values) });

/** The gradients of a program at a place, and the same by central differences. */
function gradientsAt<I extends { readonly [name: string]: TensorSpec<"float"> }>(
  specs: I,
  program: (tensors: { readonly [N in keyof I]: Tensor }) => Tensor,
): { readonly found: Values; readonly expected: { readonly [name: string]: readonly number[] } } {
  const graph = trace(specs, (tensors) => program(tensors as { readonly [N in keyof I]: Tensor }));
  const wrt = Object.keys(specs) as (keyof I & string)[];
  const inputs: Record<string, NdArray> = {};
  for (const [name, { shape }] of Object.entries(specs)) {
    const data = Float64Array.from(
      new RandomStream(3, name).uniforms(sizeOf(elementsOf(shape)), { low: 0.2, high: 1.5 }),
    );
    inputs[name] = { shape: shape.map(sizeOf), data };
  }
  const results = evaluate(valueAndGrad(graph, { wrt }), inputs);
  const lossAt = (name: string, index: number, change: number) => {
    const { shape = [], data = new Float64Array(0) } = inputs[name] ?? {};
    const moved = data.map((value, place) => (place === index ? value + change : value));
    return evaluate(graph, { ...inputs, [name]: { shape, data: moved } }).value?.data[0] ?? Number.NaN;
  };
  const step = 1e-5;
  const expected = Object.fromEntries(
    wrt.map((name) => [
      name,
      Array.from(
        inputs[name]?.data ?? [],
        (_, index) => (lossAt(name, index, step) - lossAt(name, index, -step)) / (2 * step),
      ),
    ]),
  );
  return {
    found: Object.fromEntries(wrt.map((name) => [name, results[`grad.${name}`] ?? scalar(Number.NaN)])),
    expected,
  };
}

function expectGradients<I extends { readonly [name: string]: TensorSpec<"float"> }>(
  specs: I,
  program: (tensors: { readonly [N in keyof I]: Tensor }) => Tensor,
): void {
  const { found, expected } = gradientsAt(specs, program);
  for (const [name, values] of Object.entries(expected)) {
    const data = Array.from(found[name]?.data ?? []);
    expect(data).toHaveLength(values.length);
    const error = Math.max(0, ...values.map((value, index) => Math.abs(value - (data[index] ?? Number.NaN))));
    expect(error, `gradient of ${name}: ${data} for ${values}`).toBeLessThan(
      1e-7 * Math.max(1, ...values.map(Math.abs)),
    );
  }
}

describe("the graph that comes out", () => {
  const loss = trace({ x: f32("T", 8), w: f32(8, 4) }, ({ x, w }) => {
    const y = silu(matmul(x, w));
    return { value: mean(y), hidden: y };
  });

  test("has the value, the further outputs, and a gradient for each input that was named, in its dtype and shape", () => {
    const step = valueAndGrad(loss, { wrt: ["w", "x"] });
    expect(Object.entries(step.outputs).map(([name, spec]) => `${name} ${specText(spec)}`)).toEqual([
      "value float32[]",
      "hidden float32[T,4]",
      "grad.w float32[8,4]",
      "grad.x float32[T,8]",
    ]);
    expect(step.inputs).toEqual(loss.inputs);
  });

  test("reads as forward pass, then backward pass; then folded and merged", () => {
    const twice = trace({ x: f32("T", 8), w: f32(8, 4) }, ({ x, w }) => {
      const y = matmul(x, w);
      return mean(mul(silu(y), silu(y)));
    });
    const step = valueAndGrad(twice, { wrt: ["w"] });
    expect(String(step)).toMatchInlineSnapshot(`
      "graph(x: float32[T,8], w: float32[8,4]) {
        %0 = matmul(x, w)                      : float32[T,4]
        %1 = sigmoid(%0)                       : float32[T,4]
        %2 = mul(%0, %1)                       : float32[T,4]
        %3 = sigmoid(%0)                       : float32[T,4]
        %4 = mul(%0, %3)                       : float32[T,4]
        %5 = mul(%2, %4)                       : float32[T,4]
        %6 = sum(%5) {axes=[0,1]}              : float32[]
        %7 = dimSize(%5) {axis=0}              : int32[]
        %8 = cast(%7) {dtype=float32}          : float32[]
        %9 = mul(4, %8)                        : float32[]
        %10 = div(%6, %9)                      : float32[]
        %11 = div(1, %9)                       : float32[]
        %12 = reshape(%11) {shape=[1,1]}       : float32[1,1]
        %13 = broadcastTo(%12) {shape=[T,4]}   : float32[T,4]
        %14 = mul(%13, %4)                     : float32[T,4]
        %15 = mul(%13, %2)                     : float32[T,4]
        %16 = mul(%15, %3)                     : float32[T,4]
        %17 = mul(%15, %0)                     : float32[T,4]
        %18 = sub(1, %3)                       : float32[T,4]
        %19 = mul(%3, %18)                     : float32[T,4]
        %20 = mul(%17, %19)                    : float32[T,4]
        %21 = add(%16, %20)                    : float32[T,4]
        %22 = mul(%14, %1)                     : float32[T,4]
        %23 = mul(%14, %0)                     : float32[T,4]
        %24 = add(%21, %22)                    : float32[T,4]
        %25 = sub(1, %1)                       : float32[T,4]
        %26 = mul(%1, %25)                     : float32[T,4]
        %27 = mul(%23, %26)                    : float32[T,4]
        %28 = add(%24, %27)                    : float32[T,4]
        %29 = matmul(x, %28) {transposeA=true} : float32[8,4]
      } -> value: float32[] = %10, grad.w: float32[8,4] = %29"
    `);
    const folded = foldConstants(step.bind({ T: 2 }));
    expect(String(folded)).toMatchInlineSnapshot(`
      "graph(x: float32[2,8], w: float32[8,4]) {
        %0 = matmul(x, w)                                                        : float32[2,4]
        %1 = sigmoid(%0)                                                         : float32[2,4]
        %2 = mul(%0, %1)                                                         : float32[2,4]
        %3 = sigmoid(%0)                                                         : float32[2,4]
        %4 = mul(%0, %3)                                                         : float32[2,4]
        %5 = mul(%2, %4)                                                         : float32[2,4]
        %6 = sum(%5) {axes=[0,1]}                                                : float32[]
        %7 = div(%6, 8)                                                          : float32[]
        %8 = constant() {spec=float32[2,4], data=[0.125,0.125,0.125,0.125,... 8]} : float32[2,4]
        %9 = mul(%8, %4)                                                         : float32[2,4]
        %10 = mul(%8, %2)                                                        : float32[2,4]
        %11 = mul(%10, %3)                                                       : float32[2,4]
        %12 = mul(%10, %0)                                                       : float32[2,4]
        %13 = sub(1, %3)                                                         : float32[2,4]
        %14 = mul(%3, %13)                                                       : float32[2,4]
        %15 = mul(%12, %14)                                                      : float32[2,4]
        %16 = add(%11, %15)                                                      : float32[2,4]
        %17 = mul(%9, %1)                                                        : float32[2,4]
        %18 = mul(%9, %0)                                                        : float32[2,4]
        %19 = add(%16, %17)                                                      : float32[2,4]
        %20 = sub(1, %1)                                                         : float32[2,4]
        %21 = mul(%1, %20)                                                       : float32[2,4]
        %22 = mul(%18, %21)                                                      : float32[2,4]
        %23 = add(%19, %22)                                                      : float32[2,4]
        %24 = matmul(x, %23) {transposeA=true}                                   : float32[8,4]
      } -> value: float32[] = %7, grad.w: float32[8,4] = %24"
    `);
    expect(String(eliminateCommonSubexpressions(folded))).toMatchInlineSnapshot(`
      "graph(x: float32[2,8], w: float32[8,4]) {
        %0 = matmul(x, w)                                                        : float32[2,4]
        %1 = sigmoid(%0)                                                         : float32[2,4]
        %2 = mul(%0, %1)                                                         : float32[2,4]
        %3 = mul(%2, %2)                                                         : float32[2,4]
        %4 = sum(%3) {axes=[0,1]}                                                : float32[]
        %5 = div(%4, 8)                                                          : float32[]
        %6 = constant() {spec=float32[2,4], data=[0.125,0.125,0.125,0.125,... 8]} : float32[2,4]
        %7 = mul(%6, %2)                                                         : float32[2,4]
        %8 = mul(%7, %1)                                                         : float32[2,4]
        %9 = mul(%7, %0)                                                         : float32[2,4]
        %10 = sub(1, %1)                                                         : float32[2,4]
        %11 = mul(%1, %10)                                                       : float32[2,4]
        %12 = mul(%9, %11)                                                       : float32[2,4]
        %13 = add(%8, %12)                                                       : float32[2,4]
        %14 = add(%13, %8)                                                       : float32[2,4]
        %15 = add(%14, %12)                                                      : float32[2,4]
        %16 = matmul(x, %15) {transposeA=true}                                   : float32[8,4]
      } -> value: float32[] = %5, grad.w: float32[8,4] = %16"
    `);
  });

  test("is well formed after every pass", () => {
    const step = valueAndGrad(loss, { wrt: ["w", "x"] });
    for (const graph of [step, simplify(step), expandComposites(step, () => true), step.bind({ T: 3 })]) verify(graph);
  });

  test("computes nothing for inputs that were not named", () => {
    const step = valueAndGrad(loss, { wrt: ["w"] });
    const products = step.nodes.filter(({ op }) => op.name === "matmul");
    expect(products).toHaveLength(2);
    expect(valueAndGrad(loss, { wrt: [] }).nodes).toHaveLength(expandComposites(loss, () => true).nodes.length);
  });
});

describe("gradients", () => {
  test("of a value that is used more than once are added up", () => {
    const graph = trace({ x: f32() }, ({ x }) => {
      const y = mul(x, x);
      return add(mul(y, y), y);
    });
    const { "grad.x": gradient } = evaluate(valueAndGrad(graph, { wrt: ["x"] }), { x: scalar(3) });
    // d (x^4 + x^2) = 4 x^3 + 2 x
    expect(gradient?.data[0]).toBe(4 * 27 + 6);
    expectGradients({ x: f32(3), y: f32(3) }, ({ x, y }) => {
      const shared = tanh(mul(x, y));
      return sum(add(mul(shared, exp(shared)), div(x, add(shared, 2))));
    });
  });

  test("of one tensor at both inputs of an operation", () => {
    expectGradients({ x: f32(3, 3) }, ({ x }) => sum(matmul(x, x)));
    expectGradients({ x: f32(3) }, ({ x }) => sum(div(x, mul(x, x))));
    expectGradients({ x: f32(3) }, ({ x }) => sum(sub(x, x)));
  });

  test("go through composites that have a rule and those that have none, nested", () => {
    expectGradients({ x: f32(2, 4), w: f32(3, 4), n: f32(4) }, ({ x, w, n }) =>
      mean(softmax(silu(linear(rmsNorm(x, n), w)))),
    );
    expectGradients({ x: f32(2, 2), y: f32(3) }, ({ x, y }) => globalNorm([x, mul(y, 2)]));
  });

  test("are summed where a value was broadcast", () => {
    expectGradients({ x: f32(2, 3), row: f32(3), column: f32(2, 1), one: f32() }, ({ x, row, column, one }) =>
      sum(mul(add(mul(x, row), column), exp(one))),
    );
  });

  test("of the loss by itself is 1, also where it is an input", () => {
    const same = valueAndGrad(
      trace({ x: f32() }, ({ x }) => x),
      { wrt: ["x"] },
    );
    expect(evaluate(same, { x: scalar(5) })["grad.x"]).toEqual(scalar(1));
  });

  test("are zero for inputs that the loss does not depend on, bound or not", () => {
    const graph = trace({ x: f32(2), unused: f32("T", 3), other: f32("T") }, ({ x, unused, other }) => ({
      value: sum(x),
      unused: exp(unused),
      floored: floor(other),
    }));
    const step = valueAndGrad(graph, { wrt: ["unused", "x", "other"] });
    expect(specText(step.outputs["grad.unused"])).toBe("float32[T,3]");
    const results = evaluate(step.bind({ T: 2 }), {
      x: vector(1, 2),
      unused: { shape: [2, 3], data: new Float64Array(6).fill(1) },
      other: vector(1, 2),
    });
    expect(results["grad.unused"]).toEqual({ shape: [2, 3], data: new Float64Array(6) });
    expect(results["grad.other"]).toEqual(vector(0, 0));
    expect(results["grad.x"]).toEqual(vector(1, 1));
  });

  test("are zero where the way leads through whole numbers", () => {
    const graph = trace({ x: f32(3), table: f32(3) }, ({ x, table }) => {
      const chosen = gather(table, argmax(x));
      return sum(mul(chosen, cast(cast(x, "int32"), "float32")));
    });
    const results = evaluate(valueAndGrad(graph, { wrt: ["x", "table"] }), {
      x: vector(1, 5, 2),
      table: vector(1, 2, 3),
    });
    expect(results["grad.x"]).toEqual(vector(0, 0, 0));
    expect(results["grad.table"]).toEqual(vector(0, 8, 0));
  });

  test("by a parameter are never rounded to the narrower copy that is multiplied", () => {
    const inputs = { x: f32(5, 3), w: f32(4, 3), table: f32(6, 3), bias: f32(4), ids: i32(5) };
    const graph = trace(inputs, ({ x, w, table, bias, ids }) => {
      const narrow = (tensor: Tensor) => cast(tensor, "bfloat16") as Tensor;
      const rows = add(narrow(x), gather(narrow(table), ids));
      return sum(cast(add(linear(rows, narrow(w)), narrow(bias)), "float32") as Tensor);
    });
    const wrt = ["w", "table", "bias"] as const;
    const step = valueAndGrad(graph, { wrt });
    // From the operation that sums it to the output, a gradient is float32.
    for (const name of wrt) {
      const gradient = step.outputTensors[`grad.${name}`];
      expect(gradient?.node.op.name, name).not.toBe("cast");
      expect(gradient?.dtype, name).toBe("float32");
    }
    // 257 ones in one row: bfloat16 has no 257.
    const many = trace({ table: f32(1, 1), ids: i32(257) }, ({ table, ids }) =>
      sum(cast(gather(cast(table, "bfloat16"), ids), "float32") as Tensor),
    );
    const values = {
      table: { shape: [1, 1], data: Float64Array.of(1) },
      ids: { shape: [257], data: new Int32Array(257) },
    };
    const results = evaluate(valueAndGrad(many, { wrt: ["table"] }), values);
    expect(results["grad.table"]?.data[0]).toBe(257);
  });

  test("are zero, not NaN, for a row of which nothing is seen", () => {
    const graph = trace({ x: f32(2, 2) }, ({ x }) => {
      const all = logSumExp(x);
      return sum(where(less(all, -1e30), 0, all));
    });
    const nothing = Number.NEGATIVE_INFINITY;
    const results = evaluate(valueAndGrad(graph, { wrt: ["x"] }), {
      x: { shape: [2, 2], data: Float64Array.of(nothing, nothing, 0, 0) },
    });
    expect([...(results["grad.x"]?.data ?? [])]).toEqual([0, 0, 0.5, 0.5]);

    const specs = { q: f32(1, 2, 1, 2), k: f32(1, 2, 1, 2), v: f32(1, 2, 1, 2), bias: f32(2, 1) };
    const hidden = trace(specs, (inputs) => sum(attention(inputs, { causal: false })));
    const ones = { shape: [1, 2, 1, 2], data: new Float64Array(4).fill(1) };
    const bias = { shape: [2, 1], data: Float64Array.of(nothing, 0) };
    const gradients = evaluate(valueAndGrad(hidden, { wrt: ["q", "k", "v"] }), { q: ones, k: ones, v: ones, bias });
    expect([...(gradients["grad.v"]?.data ?? [])].map(Math.fround)).toEqual([0.5, 0.5, 0.5, 0.5]);
    expect([...(gradients["grad.q"]?.data ?? [])].slice(0, 2)).toEqual([0, 0]);
  });

  test("have the dtype of their input, through casts and operations of mixed width", () => {
    const narrow: TensorSpec<"float"> = { ...f32(2, 3), dtype: "bfloat16" };
    const graph = trace({ x: narrow, w: f32(4, 3), scale: { ...f32(), dtype: "float64" } }, ({ x, w, scale }) => {
      const y = linear(x, cast(w, "bfloat16"));
      return sum(mul(cast(y, "float64"), scale));
    });
    const step = valueAndGrad(graph, { wrt: ["x", "w", "scale"] });
    verify(step);
    expect(Object.values(step.outputs).map(({ dtype }) => dtype)).toEqual([
      "float64",
      "bfloat16",
      "float32",
      "float64",
    ]);
  });

  test("are cast where a rule gives them in another width", () => {
    const op = definePrimitive<"acme/wide", { readonly x: Tensor }, Record<string, never>>({
      name: "acme/wide",
      inputs: ["x"],
      infer: ({ x }) => ({ value: x }),
      reference: ({ x }, _attributes, { value }) => value.data.set(x.data),
      vjp: ({ gradients }) => ({ x: gradients.value && mul(cast(gradients.value, "float64"), 3) }),
    });
    const step = valueAndGrad(
      trace({ x: f32(2) }, ({ x }) => sum(add(apply(op, { x }, {}).value, x))),
      { wrt: ["x"] },
    );
    expect(step.outputs["grad.x"].dtype).toBe("float32");
    expect(evaluate(step, { x: vector(1, 2) })["grad.x"]).toEqual(vector(4, 4));
  });

  test("of empty tensors are empty", () => {
    const graph = trace({ x: f32("T", 2), w: f32(2) }, ({ x, w }) => sum(mul(x, w))).bind({ T: 0 });
    const results = evaluate(valueAndGrad(graph, { wrt: ["x", "w"] }), {
      x: { shape: [0, 2], data: new Float64Array(0) },
      w: vector(1, 2),
    });
    expect(results["grad.x"]).toEqual({ shape: [0, 2], data: new Float64Array(0) });
    expect(results["grad.w"]).toEqual(vector(0, 0));
  });

  test("may be differentiated again", () => {
    const cube = trace({ x: f32() }, ({ x }) => mul(mul(x, x), x));
    const first = valueAndGrad(cube, { wrt: ["x"] });
    const slope = new Graph<{ readonly x: TensorSpec }, { readonly value: TensorSpec }>(
      { x: first.inputTensors.x as Tensor },
      { value: first.outputTensors["grad.x"] as Tensor },
    );
    const { value, "grad.x": curvature } = evaluate(valueAndGrad(slope, { wrt: ["x"] }), { x: scalar(2) });
    expect(value).toEqual(scalar(12));
    expect(curvature).toEqual(scalar(12));
  });

  test("of a long chain", () => {
    const depth = 10_000;
    const graph = trace({ x: f32() }, ({ x }) => {
      let y = x;
      for (let step = 0; step < depth; step++) y = neg(y);
      return y;
    });
    const step = valueAndGrad(graph, { wrt: ["x"] });
    expect(step.nodes.length).toBe(2 * depth + 1);
    expect(evaluate(step, { x: scalar(1) })["grad.x"]).toEqual(scalar(1));
  });
});

describe("errors", () => {
  const specs = { x: f32(3), ids: i32(3) };

  test("without a scalar float named `value`", () => {
    const wrong = (outputs: (x: Tensor, ids: Tensor<"int">) => { readonly [name: string]: AnyTensor }) => () =>
      valueAndGrad(trace(specs, ({ x, ids }) => outputs(x, ids)) as unknown as ReturnType<typeof scalarLoss>, {
        wrt: ["x"],
      });
    const scalarLoss = () => trace(specs, ({ x }) => sum(x));
    const message = 'valueAndGrad: expected a scalar float output "value", got ';
    expect(wrong((x) => ({ loss: sum(x) }))).toThrow(new GraphError(`${message}none`));
    expect(wrong((x) => ({ value: x }))).toThrow(new GraphError(`${message}float32[3]`));
    expect(wrong((_, ids) => ({ value: sum(ids) }))).toThrow(new GraphError(`${message}int32[]`));
  });

  test("for an input that does not exist or is not a float", () => {
    const graph = trace(specs, ({ x }) => sum(x));
    const unknown = "weight" as "x";
    expect(() => valueAndGrad(graph, { wrt: [unknown] })).toThrow(
      new GraphError('valueAndGrad: no input is named "weight"; this graph has x, ids'),
    );
    expect(() => valueAndGrad(graph, { wrt: ["ids"] })).toThrow(
      new GraphError('valueAndGrad: input "ids" is int32[3]; only floats have gradients'),
    );
  });

  test("for a gradient that is there already", () => {
    const step = valueAndGrad(
      trace(specs, ({ x }) => sum(mul(x, x))),
      { wrt: ["x"] },
    );
    expect(() => valueAndGrad(step, { wrt: ["x"] })).toThrow(
      new GraphError('valueAndGrad: the graph already has an output "grad.x"; leave it out or rename it'),
    );
  });

  test("for an operation without gradient on the way, with its reason", () => {
    expect(() =>
      valueAndGrad(
        trace(specs, ({ x }) => sum(floor(exp(x)))),
        { wrt: ["x"] },
      ),
    ).toThrow(new GraphError("valueAndGrad: floor has no gradient: it is constant almost everywhere"));
    const tensors = { p: f32(2), g: f32(2), one: f32(), ok: { dtype: "bool", shape: [] } as TensorSpec<"bool"> };
    const update = trace(tensors, ({ p, g, one, ok }) =>
      sum(
        adamw({
          parameter: p,
          gradient: g,
          firstMoment: g,
          secondMoment: g,
          learningRate: one,
          firstCorrection: one,
          secondCorrection: one,
          gradientScale: one,
          proceed: ok,
        }).parameter,
      ),
    );
    expect(() => valueAndGrad(update, { wrt: ["p"] })).toThrow(
      new GraphError("valueAndGrad: adamw has no gradient: optimizer steps are not differentiated"),
    );
  });

  test("not for an operation without gradient beside the way", () => {
    const graph = trace(specs, ({ x }) => ({ value: sum(x), floored: floor(x), place: argmax(x) }));
    expect(() => valueAndGrad(graph, { wrt: ["x"] })).not.toThrow();
  });

  test("for rules that give gradients of the wrong shape, or none", () => {
    const withRule = (rule: (x: Tensor, gradient: Tensor) => Gradients<{ readonly x: Tensor }>) =>
      definePrimitive<"acme/identity", { readonly x: Tensor }, Record<string, never>>({
        name: "acme/identity",
        inputs: ["x"],
        infer: ({ x }) => ({ value: x }),
        reference: ({ x }, _attributes, { value }) => value.data.set(x.data),
        vjp: ({ inputs: { x }, gradients }) => (gradients.value ? rule(x, gradients.value) : {}),
      });
    const differentiate = (rule: Parameters<typeof withRule>[0]) => () =>
      valueAndGrad(
        trace(specs, ({ x }) => sum(apply(withRule(rule), { x }, {}).value)),
        { wrt: ["x"] },
      );
    expect(differentiate((_, gradient) => ({ x: gradient }))).not.toThrow();
    expect(differentiate((_, gradient) => ({ x: sum(gradient) }))).toThrow(
      new GraphError('valueAndGrad: acme/identity gave a gradient float32[] for its input "x" float32[3]'),
    );
    expect(differentiate(() => ({}))).toThrow(
      new GraphError('valueAndGrad: acme/identity gave no gradient for its input "x" float32[3]'),
    );
  });

  test("for a backward pass that would read what the forward pass overwrites", () => {
    const tensors = { cache: f32(1, 2), update: f32(1, 1), start: i32(1) };
    const graph = trace(tensors, ({ cache, update, start }) => {
      const value = sum(mul(cache, cache));
      return { value, cache: cacheWrite(cache, mul(update, value), start) };
    });
    expect(() => valueAndGrad(graph, { wrt: ["cache"] })).toThrow(
      new GraphError('verify: cacheWrite overwrites "cache", so whatever else reads it must come before by need'),
    );
  });

  test("rather than silence where a rule knows only some outputs", () => {
    const graph = trace({ logits: f32(2, 4), targets: i32(2) }, ({ logits, targets }) =>
      sum(apply(crossEntropyOp, { logits, targets }, {}).logSumExp),
    );
    expect(() => valueAndGrad(graph, { wrt: ["logits"] })).toThrow(GraphError);
  });
});

test("a rule is told which inputs need a gradient and gets only the gradients that there are", () => {
  const seen: unknown[] = [];
  const pairOp = defineComposite<
    "acme/pair",
    { readonly a: Tensor; readonly b: Tensor; readonly ids: Tensor<"int"> },
    Record<string, never>,
    { sum: Tensor; product: Tensor }
  >({
    name: "acme/pair",
    inputs: ["a", "b", "ids"],
    compose: ({ a, b }) => ({ sum: add(a, b), product: mul(a, b) }),
    vjp({ gradients, needs, inputs: { b }, outputs }) {
      seen.push(needs, Object.keys(gradients), Object.keys(outputs));
      return { a: gradients.product && mul(gradients.product, b) };
    },
  });
  const graph = trace({ a: f32(2), b: f32(2), ids: i32(2) }, ({ a, b, ids }) =>
    sum(apply(pairOp, { a, b: sigmoid(b), ids }, {}).product),
  );
  const step = valueAndGrad(graph, { wrt: ["a"] });
  expect(seen).toEqual([{ a: true, b: false, ids: false }, ["product"], ["sum", "product"]]);
  const results = evaluate(step, { a: vector(1, 2), b: vector(0, 0), ids: { shape: [2], data: new Int32Array(2) } });
  expect(results["grad.a"]).toEqual(vector(0.5, 0.5));
});
