// That fewer operations compute the same: every graph before and after, by the interpreter.

import {
  adamw,
  alignGates,
  applyPrecision,
  cast,
  evaluate,
  type Family,
  f32,
  bool as flag,
  type Graph,
  type GraphInputs,
  languageModel,
  type NdArray,
  preset,
  RandomStream,
  simplify,
  sizesOf,
  type Tensor,
  trace,
  valueAndGrad,
} from "@sisa/core";
import { describe, expect, test } from "vitest";
import { fuse } from "./fuse.ts";

const [B, T, vocabulary] = [2, 6, 11];

function model(family: Family) {
  const config = preset(family, "50m", { vocabularySize: vocabulary, maximumLength: T });
  const small = { width: 16, heads: 2, feedForwardWidth: 20, mixers: config.mixers.slice(0, 2) };
  return languageModel({ ...config, ...small, ...(family === "sisa" ? { stateWidth: 4 } : {}) });
}

function gradients(family: Family, precision: "float32" | "bfloat16"): Graph {
  const loss = applyPrecision(alignGates(model(family).lossGraph(), 8), precision);
  const graph = valueAndGrad(loss, { wrt: Object.keys(model(family).parameters) }) as unknown as Graph;
  return simplify(graph.bind({ B, T }));
}

function valuesFor(graph: Graph): Record<string, NdArray> {
  return Object.fromEntries(
    Object.entries(graph.inputs).map(([name, { dtype, shape }]) => {
      const sizes = sizesOf(shape);
      const count = sizes.reduce((a, b) => a * b, 1);
      const stream = new RandomStream(3, name);
      const whole = () => Int32Array.from({ length: count }, (_, index) => stream.below(vocabulary, index));
      const data = dtype === "int32" ? whole() : Float64Array.from(stream.normal(count), (x) => 0.3 * x);
      return [name, { shape: sizes, data: dtype === "bool" ? Uint8Array.of(1) : data }];
    }),
  );
}

function largestDifference(a: Graph, b: Graph): number {
  const values = valuesFor(a);
  const [wanted, found] = [a, b].map((graph) => evaluate(graph, values));
  return Math.max(
    ...Object.entries(wanted ?? {}).map(([name, { data }]) => {
      const other = found?.[name]?.data ?? [];
      return Math.max(...Array.from(data, (x, index) => Math.abs(x - (other[index] ?? Number.NaN))));
    }),
  );
}

const count = ({ nodes }: Graph, name: string) => nodes.filter(({ op }) => op.name === name).length;

describe.each(["sisa", "transformer"] as const)("a training step of %s", (family) => {
  test.each(["float32", "bfloat16"] as const)("computes the same in %s", (precision) => {
    const graph = gradients(family, precision);
    const fused = fuse(graph, { leastRows: 1 });
    expect(Object.keys(fused.outputs)).toEqual(Object.keys(graph.outputs));
    expect(largestDifference(graph, fused)).toBeLessThan(1e-12);
  });

  test("has one product where several share an operand", () => {
    const graph = gradients(family, "bfloat16");
    const fused = fuse(graph, { leastRows: 1 });
    const products = count(fused, "matmul") + count(fused, "cuda/productAdd");
    // Forward, by the input and by the weights: attention in, out, gates, and down; decays and phases in float32 apart.
    const perLayer = 3 * 4 + (family === "sisa" ? 1 : 0);
    const plain = count(graph, "matmul");
    expect(products).toBeLessThan(plain);
    expect(products).toBe(2 * perLayer);
    expect(count(fused, "cuda/productAdd")).toBe(4);
    expect(count(fused, "cuda/rmsNormBackwardAdd")).toBe(4);
    // The embedding is read twice: by its rows, and whole by the loss.
    expect(count(fused, "cuda/addRows")).toBe(1);
  });
});

test("states and attention take along what follows them", () => {
  const sisa = fuse(gradients("sisa", "bfloat16"), { leastRows: 1 });
  const joined = ["decayAttentionStates", "decayAttentionBackwardStates"];
  for (const name of joined) expect(count(sisa, `cuda/${name}`), name).toBe(2);
  const transformer = fuse(gradients("transformer", "bfloat16"), { leastRows: 1 });
  expect(count(transformer, "cuda/attentionBackwardRotated")).toBe(2);
  // Forward, of queries and keys; no gradient is rotated by itself.
  for (const graph of [sisa, transformer]) expect(count(graph, "rope")).toBe(4);
  // What is left is lambda, forward.
  expect(["neg", "sigmoid", "softplus"].map((name) => count(sisa, name))).toEqual([0, 0, 2]);
});

test("few rows keep their products", () => {
  const graph = gradients("sisa", "bfloat16");
  expect(count(fuse(graph), "concat")).toBe(count(graph, "concat"));
});

test("optimizer steps of one kind become one, with their narrow copies", () => {
  const scalar = f32();
  const specs = { a: f32(3), b: f32(2, 2) };
  const inputs = {
    ...specs,
    ...Object.fromEntries(
      Object.entries(specs).flatMap(([name, spec]) => ["g", "m", "v"].map((kind) => [`${kind}.${name}`, spec])),
    ),
    rate: scalar,
    one: scalar,
    two: scalar,
    proceed: flag(),
  };
  const graph = trace(inputs as GraphInputs, (given) => {
    const float = (name: string) => given[name] as Tensor;
    const outputs = Object.keys(specs).map((name) => {
      const updated = adamw(
        {
          parameter: float(name),
          gradient: float(`g.${name}`),
          firstMoment: float(`m.${name}`),
          secondMoment: float(`v.${name}`),
          learningRate: float("rate"),
          firstCorrection: float("one"),
          secondCorrection: float("one"),
          gradientScale: float("two"),
          proceed: given.proceed as unknown as Tensor<"bool">,
        },
        { weightDecay: name === "a" ? 0 : 0.1 },
      );
      const narrow = name === "a" ? {} : { [`narrow.${name}`]: cast(updated.parameter, "bfloat16") };
      return [[name, updated.parameter], [`m.${name}`, updated.firstMoment], ...Object.entries(narrow)];
    });
    return Object.fromEntries(outputs.flat() as [string, Tensor][]);
  }) as unknown as Graph;
  const fused = fuse(graph);
  expect(fused.nodes.map(({ op }) => op.name)).toEqual(["cuda/adamwMany"]);
  const values = valuesFor(graph);
  for (const name of ["one", "v.a", "v.b"]) {
    const { shape, data } = values[name] ?? { shape: [], data: [] };
    values[name] = { shape, data: Float64Array.from(data, Math.abs) };
  }
  const [wanted, found] = [graph, fused].map((each) => evaluate(each, values));
  expect(found).toEqual(wanted);
});
