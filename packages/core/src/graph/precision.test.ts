import { describe, expect, test } from "vitest";
import { valueAndGrad } from "../autodiff/value-and-grad.ts";
import { roundTo } from "../dtype.ts";
import { initialize, parameterSpecs } from "../layers/layer.ts";
import { languageModel } from "../models/language-model.ts";
import { add } from "../ops/add.ts";
import { exp } from "../ops/exp.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { softplus } from "../ops/softplus.ts";
import { sum } from "../ops/sum.ts";
import { evaluate } from "../reference/evaluate.ts";
import { f32 } from "../spec.ts";
import { type Graph, trace } from "./graph.ts";
import { applyPrecision, shadowName, takeShadows } from "./precision.ts";

const model = languageModel({
  mixers: ["sisa", "attention"],
  vocabularySize: 17,
  width: 16,
  heads: 2,
  feedForwardWidth: 24,
  stateWidth: 4,
  form: "exact",
  maximumLength: 16,
  ropeBase: 10_000,
  normEpsilon: 1e-6,
});
const names = Object.keys(model.parameters);

/** Values of the loss graph's inputs, and of narrow copies, which hold what they are copied from. */
function valuesFor(graph: Graph) {
  const parameters = initialize(model, 1);
  return Object.fromEntries(
    Object.entries(graph.inputs).map(([name, { shape }]) => {
      const sizes = shape.map(({ value }) => value ?? 0);
      const count = sizes.reduce((a, b) => a * b, 1);
      const own = parameters[name.replace(/^shadow\./, "")];
      const data = own ? Float64Array.from(own) : Int32Array.from({ length: count }, (_, i) => (i * 5) % 17);
      return [name, { shape: sizes, data }];
    }),
  );
}

test("float32 changes nothing", () => {
  const graph = trace({ x: f32(2) }, ({ x }) => exp(x));
  expect(applyPrecision(graph, "float32")).toBe(graph);
});

test("products are narrow, what is exponentiated is wide, inputs and outputs keep their dtypes", () => {
  const graph = trace({ x: f32(3, 4), w: f32(5, 4) }, ({ x, w }) => ({ y: linear(x, w), e: exp(linear(x, w)) }));
  const narrow = applyPrecision(graph, "bfloat16");
  expect([narrow.inputs, narrow.outputs]).toEqual([graph.inputs, graph.outputs]);
  const products = narrow.nodes.filter(({ op }) => op.name === "matmul");
  for (const { inputs, outputs } of products) {
    expect([inputs.a?.dtype, inputs.b?.dtype, outputs.value?.dtype]).toEqual(["bfloat16", "bfloat16", "float32"]);
  }
  expect(products).toHaveLength(2);
});

test("sums of a product that is read wide are never rounded, through a reshape and a bias too", () => {
  const graph = trace({ x: f32(3, 4), w: f32(4, 4), bias: f32(4) }, ({ x, w, bias }) =>
    softplus(reshape(add(linear(x, w), bias), [3, 2, 2])),
  );
  const narrow = applyPrecision(graph, "bfloat16");
  const casts = narrow.nodes.filter(({ op }) => op.name === "cast");
  // Only x and w are narrowed, and nothing is widened.
  expect(casts.map(({ outputs }) => outputs.value?.dtype)).toEqual(["bfloat16", "bfloat16"]);
});

test("what flows between products stays narrow", () => {
  const graph = trace({ x: f32(3, 4), w: f32(4, 4) }, ({ x, w }) => {
    const h = linear(x, w);
    return sum(add(h, linear(mul(h, h), w)));
  });
  const narrow = applyPrecision(graph, "bfloat16");
  const dtypes = (op: string) =>
    narrow.nodes.filter((node) => node.op.name === op).map(({ outputs }) => outputs.value?.dtype);
  expect([dtypes("mul"), dtypes("add"), dtypes("sum")]).toEqual([["bfloat16"], ["bfloat16"], ["float32"]]);
});

describe("decoding in bfloat16", () => {
  const graph = applyPrecision(model.decodeGraph(1, 8), "bfloat16") as unknown as Graph;
  const narrow = Object.keys(model.cacheSpecs()).filter((name) => graph.inputs[name]?.dtype === "bfloat16");

  test("keeps caches narrow that are read narrow, and sums wide", () => {
    const read = ["layers.0.key", "layers.0.value", "layers.0.importance", "layers.1.key", "layers.1.value"];
    expect(narrow).toEqual(read);
    for (const name of Object.keys(model.cacheSpecs())) expect(graph.outputs[name]).toEqual(graph.inputs[name]);
    const casts = graph.nodes.filter(({ op, inputs }) => op.name === "cast" && inputs.x?.node.op.name === "cacheWrite");
    expect(casts).toEqual([]);
  });

  test("reads tables of positions as they are", () => {
    const tables = graph.nodes.filter(({ op }) => op.name === "rope").map(({ inputs }) => inputs.cos?.dtype);
    expect(new Set(tables)).toEqual(new Set(["float32"]));
    expect(graph.nodes.filter(({ op, inputs }) => op.name === "cast" && inputs.x?.node.op.name === "constant")).toEqual(
      [],
    );
  });
});

describe("a model in bfloat16", () => {
  const plain = valueAndGrad(model.lossGraph(), { wrt: names }) as unknown as Graph;
  const narrow = valueAndGrad(applyPrecision(model.lossGraph(), "bfloat16"), { wrt: names }) as unknown as Graph;
  const sizes = { B: 2, T: 9 };

  test("has gradients in the dtypes of the parameters, summed in float32", () => {
    for (const [name, spec] of Object.entries(parameterSpecs(model))) {
      const gradient = narrow.outputTensors[`grad.${name}`];
      expect(gradient?.dtype, name).toBe(spec.dtype);
      const from = gradient?.node.op.name === "cast" ? gradient.node.inputs.x?.dtype : gradient?.dtype;
      expect(from, name).toBe("float32");
    }
  });

  test("has the loss and the gradients of float32, within a few roundings", () => {
    const [a, b] = [plain.bind(sizes), narrow.bind(sizes)];
    const wanted = evaluate(a, valuesFor(a), "float64");
    const found = evaluate(b, valuesFor(b), "rounded");
    expect(Math.abs((found.value?.data[0] ?? 0) - (wanted.value?.data[0] ?? 0))).toBeLessThan(5e-3);
    for (const name of names) {
      const [x, y] = [found[`grad.${name}`]?.data ?? [], wanted[`grad.${name}`]?.data ?? []];
      let error = 0;
      let size = 0;
      for (let i = 0; i < y.length; i++) {
        error += ((x[i] ?? 0) - (y[i] ?? 0)) ** 2;
        size += (y[i] ?? 0) ** 2;
      }
      expect(Math.sqrt(error / size), name).toBeLessThan(0.05);
    }
  });

  test("takes copies of parameters instead of making them, with the same result", () => {
    const { graph, shadowed } = takeShadows(narrow, names);
    expect(shadowed).toContain("embed.weight");
    expect(shadowed).toContain("layers.0.W_Q.weight");
    // Norms, lambda and biases are read as they are.
    expect(shadowed).not.toContain("final_norm.weight");
    expect(shadowed).not.toContain("layers.0.lambda_raw");
    for (const name of shadowed) {
      expect(graph.inputs[shadowName(name)]).toEqual({ dtype: "bfloat16", shape: parameterSpecs(model)[name]?.shape });
      expect(graph.inputs[name]).toBeUndefined();
    }
    const [a, b] = [narrow.bind(sizes), graph.bind(sizes)];
    const results = [evaluate(a, valuesFor(a), "rounded"), evaluate(b, roundInputs(b, valuesFor(b)), "rounded")];
    expect(results[1]).toEqual(results[0]);
  });
});

/** The copies as a device holds them. */
function roundInputs(graph: Graph, values: ReturnType<typeof valuesFor>): ReturnType<typeof valuesFor> {
  return Object.fromEntries(
    Object.entries(values).map(([name, { shape, data }]) => {
      const narrow = graph.inputs[name]?.dtype === "bfloat16" && data instanceof Float64Array;
      return [name, { shape, data: narrow ? data.map((x) => roundTo("bfloat16", x)) : data }];
    }),
  );
}
