// Sequences whose caches lie in pages of one pool give what full passes give, in float64.
import { expect, test } from "vitest";
import { sizesOf } from "../dim.ts";
import { GraphError } from "../errors.ts";
import type { NdArray } from "../graph/op.ts";
import { initialize } from "../layers/layer.ts";
import { RandomStream } from "../random.ts";
import { evaluate } from "../reference/evaluate.ts";
import type { ModelConfig } from "./config.ts";
import { languageModel } from "./language-model.ts";

const vocabularySize = 19;
const pageSize = 64;

const mixerSettings = {
  sigmoid: { kind: "sisa", weights: "sigmoid" },
  fox: { kind: "attention", positions: "none", forget: true },
  alibi: { kind: "attention", positions: "alibi" },
  grouped: { kind: "attention", keyValueHeads: 1 },
  local: { kind: "attention", window: 20, keyValueHeads: 1, keyWidth: 12 },
  localAgain: { kind: "attention", window: 20, keyValueHeads: 1, keyWidth: 12, reuseKeys: true },
} as const satisfies ModelConfig["mixerSettings"];

function tinyModel(mixers: readonly string[], change: Partial<ModelConfig> = {}) {
  const sizes = { vocabularySize, width: 16, heads: 2, feedForwardWidth: 12, stateWidth: 4, maximumLength: 200 };
  const shared = { form: "exact", ropeBase: 1e4, normEpsilon: 1e-6, mixerSettings } as const;
  return languageModel({ mixers, ...sizes, ...shared, ...change });
}

const random = new RandomStream(2, "tokens");
const [first, second] = [0, 1].map((sequence) =>
  Array.from({ length: 140 }, (_, index) => random.below(vocabularySize, (index < 70 ? 0 : sequence * 1000) + index)),
) as [number[], number[]];

const ints = (data: readonly number[], ...shape: number[]): NdArray => ({ shape, data: Int32Array.from(data) });

test.each<[string, readonly string[], Partial<ModelConfig>]>([
  ["SISA and attention", ["sisa", "attention"], {}],
  ["SISA of form sdpa", ["sisa"], { form: "sdpa", mixerSettings: {} }],
  ["SISA with sigmoids", ["sigmoid"], {}],
  ["FoX and ALiBi", ["fox", "alibi"], {}],
  ["groups of heads and windows", ["grouped", "local", "localAgain"], {}],
])("%s", (_name, mixers, change) => {
  const model = tinyModel(mixers, change);
  const weights = Object.fromEntries(
    Object.entries(initialize(model, 5)).map(([name, values]) => {
      const factor = name.includes("norm") || !name.endsWith(".weight") ? 1 : 12;
      return [name, { shape: model.parameters[name]?.shape ?? [], data: Float64Array.from(values, (x) => x * factor) }];
    }),
  );
  const full = [first, second].map((ids) => {
    const graph = model.logitsGraph().bind({ B: 1, T: ids.length });
    return evaluate(graph, { ids: ints(ids, 1, ids.length), ...weights }).logits?.data ?? new Float64Array();
  });
  const names = Object.keys(model.cacheSpecs());
  const [N, M] = [6, 3];
  const open = model.stepGraph({ pageSize });
  // Nothing of what pages held before may matter.
  let pools: Record<string, NdArray> = Object.fromEntries(
    Object.entries(open.bind({ B: 1, T: 1, R: 1, N, M }).inputs).flatMap(([name, { shape }]) => {
      const sizes = sizesOf(shape);
      const data = new Float64Array(sizes.reduce((a, b) => a * b, 1)).fill(Number.NaN);
      return names.includes(name) ? [[name, { shape: sizes, data }]] : [];
    }),
  );
  const tables = [
    [4, 1, 3],
    [4, 5, 0],
  ];
  const sequences = [first, second];
  const run = (lanes: readonly { readonly sequence: number; readonly start: number }[], T: number) => {
    const B = lanes.length;
    const inputs = {
      ids: ints(
        lanes.flatMap(({ sequence, start }) => sequences[sequence]?.slice(start, start + T) ?? []),
        B,
        T,
      ),
      start: ints(
        lanes.map(({ start }) => start),
        B,
      ),
      places: ints(
        Array.from({ length: B * T }, (_, place) => place),
        B * T,
      ),
      pages: ints(
        lanes.flatMap(({ sequence }) => tables[sequence] ?? []),
        B,
        M,
      ),
    };
    const outputs = evaluate(open.bind({ B, T, R: B * T, N, M }), { ...inputs, ...pools, ...weights });
    pools = Object.fromEntries(names.map((name) => [name, outputs[name] as NdArray]));
    lanes.forEach(({ sequence, start }, lane) => {
      const size = T * vocabularySize;
      const found = outputs.logits?.data.slice(lane * size, (lane + 1) * size) ?? [];
      const wanted = full[sequence]?.slice(start * vocabularySize, start * vocabularySize + size) ?? [];
      const worst = Math.max(...Array.from(found, (value, index) => Math.abs(value - (wanted[index] ?? Number.NaN))));
      expect(worst).toBeLessThan(1e-9);
    });
  };
  run([{ sequence: 0, start: 0 }], 60);
  run([{ sequence: 0, start: 60 }], 70);
  // The second sequence begins as the first does: its first page is there.
  run([{ sequence: 1, start: 64 }], 7);
  run(
    [
      { sequence: 1, start: 71 },
      { sequence: 0, start: 130 },
    ],
    1,
  );
});

test("a state has no pages", () => {
  const mamba = { kind: "mamba2", headWidth: 8 } as const;
  const model = tinyModel(["recurrent"], { mixerSettings: { recurrent: mamba } });
  expect(() => model.stepGraph({ pageSize })).toThrow(GraphError);
});
