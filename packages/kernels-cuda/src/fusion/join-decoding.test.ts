// That a step of decoding is few operations, which compute what all of them did, by the interpreter.

import {
  evaluate,
  type Family,
  f32,
  type Graph,
  hoistConstants,
  i32,
  inPrecision,
  languageModel,
  matmul,
  maximum,
  type NdArray,
  type Node,
  preset,
  RandomStream,
  rmsNorm,
  simplify,
  sizesOf,
  takeRow,
  trace,
} from "@sisa/core";
import { describe, expect, test } from "vitest";
import { lower } from "../backend.ts";
import { aliasOf } from "../lowerings/movement.ts";
import { planWithoutDevice } from "../testing.ts";

const [B, C, vocabulary] = [2, 12, 11];
const layers = 2;

/** Heads as wide as the kernels take them, and a feed-forward that is no multiple of 8. */
function model(family: Family) {
  const config = preset(family, "50m", { vocabularySize: vocabulary, maximumLength: C });
  const small = { width: 256, heads: 4, feedForwardWidth: 76, mixers: config.mixers.slice(0, layers) };
  return languageModel({ ...config, ...small, ...(family === "sisa" ? { stateWidth: 16 } : {}) });
}

function stepOf(family: Family, precision: "float32" | "bfloat16", tokens = 1): Graph {
  return simplify(inPrecision(model(family).decodeGraph(B, C), precision)).bind({ T: tokens }) as unknown as Graph;
}

/** With caches in a pool of pages, three for each sequence. */
function pagedStepOf(family: Family, precision: "float32" | "bfloat16"): Graph {
  const graph = simplify(inPrecision(model(family).stepGraph({ pageSize: 64 }), precision));
  return graph.bind({ B, T: 1, R: B, N: 5, M: 3 }) as unknown as Graph;
}

function valuesFor(graph: Graph, start: readonly number[]): Record<string, NdArray> {
  const whole: Record<string, readonly number[]> = {
    ids: [3, 7],
    start,
    last: [0, 0],
    places: [0, 1],
    pages: [4, 0, 2, 4, 1, 3],
  };
  return Object.fromEntries(
    Object.entries(graph.inputs).map(([name, { shape }]) => {
      const sizes = sizesOf(shape);
      const count = sizes.reduce((a, b) => a * b, 1);
      const normal = () => Float64Array.from(new RandomStream(3, name).normal(count), (x) => 0.2 * x);
      const given = whole[name];
      return [name, { shape: sizes, data: given ? Int32Array.from(given) : normal() }];
    }),
  );
}

const parameterNames = (family: Family) =>
  Object.fromEntries(Object.keys(model(family).parameters).map((name) => [name, 1]));

/** That all layers are joined, and compute what they did. */
function expectSame(family: Family, graph: Graph, starts: readonly (readonly number[])[]): void {
  const joined = lower(graph, parameterNames(family));
  expect(joined.nodes.filter(({ op }) => op.name === "cuda/decodeStep")).toHaveLength(layers);
  for (const start of starts) {
    const values = valuesFor(graph, start);
    const [wanted, found] = [graph, joined].map((each) => evaluate(each, values));
    for (const [name, { data }] of Object.entries(wanted ?? {})) {
      const other = found?.[name]?.data ?? [];
      const worst = Math.max(...Array.from(data, (x, i) => Math.abs(x - (other[i] ?? Number.NaN))));
      expect(worst, name).toBeLessThan(1e-9);
    }
  }
}

/** Kernels in order, by the first word of their names, and other steps by their kind. */
function launchesOf(family: Family, graph: Graph, capability: number): readonly string[] {
  const names = Object.keys(parameterNames(family));
  const isAlias = (node: Node) => aliasOf(node) !== undefined;
  const { main } = hoistConstants(lower(graph, parameterNames(family)), names, isAlias);
  const state = Object.keys(model(family).cacheSpecs()).map((name) => [name, name] as const);
  const { steps } = planWithoutDevice(main, state, { capability });
  return steps.map((step) => (step.kind === "kernel" ? step.kernel.replace(/_.*/, "") : step.kind));
}

describe.each([
  ["sisa", "caches of its own", stepOf],
  ["transformer", "caches of its own", stepOf],
  ["sisa", "pages", pagedStepOf],
  ["transformer", "pages", pagedStepOf],
] as const)("one token of %s, with %s", (family, _where, graphOf) => {
  const isPaged = graphOf === pagedStepOf;

  test.each(["float32", "bfloat16"] as const)("is the same in %s once it is joined", (precision) => {
    expectSame(family, graphOf(family, precision), [[0, 1], isPaged ? [65, 180] : [5, 11]]);
  });

  const launches = (precision: "float32" | "bfloat16", capability: number) =>
    launchesOf(family, graphOf(family, precision), capability);

  test.each([
    ["float32", 90],
    ["bfloat16", 80],
  ] as const)("takes five kernels a layer in %s for %d, and no copies", (precision, capability) => {
    const layer = ["fewRows", "decodeStep", "fewRows", "fewRows", "fewRows"];
    const all = Array.from({ length: layers }, () => layer).flat();
    const last = isPaged ? ["rmsNorm", "gather"] : [];
    expect(launches(precision, capability)).toEqual(["gather", ...all, ...last, "fewRows"]);
  });

  test("takes one launch for ids and all layers in bfloat16 on Hopper", () => {
    const rest = isPaged ? ["decodeTokenHopper", "rmsNorm", "gather", "fewRows"] : ["decodeTokenHopper"];
    expect(launches("bfloat16", 90)).toEqual(rest);
  });
});

describe.each(["sisa", "transformer"] as const)("several tokens of %s", (family) => {
  const tokens = 8;

  test.each(["float32", "bfloat16"] as const)("are the same in %s once they are joined", (precision) => {
    expectSame(family, stepOf(family, precision, tokens), [
      [0, 1],
      [4, 3],
    ]);
  });

  test("take eleven launches a layer in bfloat16, and no copies", () => {
    const mixer = [
      "product",
      ...(family === "sisa" ? ["product"] : []),
      "prepareTokens",
      "attentionTiles",
      "joinSpans",
    ];
    const layer = ["rmsNorm", ...mixer, "product", "rmsNorm", "product", "swiglu", "product"];
    const all = Array.from({ length: layers }, () => layer).flat();
    expect(launchesOf(family, stepOf(family, "bfloat16", tokens), 90)).toEqual(["gather", ...all, "fewRows"]);
  });
});

test.each([0, 1])("rows below %i are that row in the product of a norm", (least) => {
  const specs = { x: f32(2, 3, 64), norm: f32(64), weight: f32(8, 64), row: i32(2) };
  const graph = trace(specs, ({ x, norm, weight, row }) =>
    matmul(takeRow(rmsNorm(x, norm), maximum<"int">(row, least)), weight, { transposeB: true }),
  ) as unknown as Graph;
  const joined = lower(graph, { norm: 1, weight: 1 });
  expect(joined.nodes.map(({ op }) => op.name)).toEqual(
    least === 0 ? ["cuda/normProduct"] : ["constant", "maximum", "cuda/normProduct"],
  );
  const values = { ...valuesFor(graph, []), row: { shape: [2], data: Int32Array.of(-1, 2) } };
  const [wanted, found] = [graph, joined].map((each) => evaluate(each, values).value?.data);
  expect(found).toEqual(wanted);
});
