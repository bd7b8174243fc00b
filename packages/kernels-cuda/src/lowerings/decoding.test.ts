// The kernels of decoding against the compositions that they stand for, computed by the interpreter in float64, on rounded
// inputs; reported as not run where there is no GPU.

import {
  type AnyTensor,
  applyOp,
  attentionOp,
  decayAttentionOp,
  evaluate,
  f32,
  fromBfloat16Bits,
  type Graph,
  i32,
  initialize,
  inPrecision,
  languageModel,
  type Op,
  preset,
  RandomStream,
  simplify,
  sizesOf,
  type TensorSpec,
  toBfloat16Bits,
  trace,
} from "@sisa/core";
import { expect, test } from "vitest";
import { type CudaBackend, cuda } from "../backend.ts";
import { decodeStepOp, normGatesOp, normProductOp } from "../fusion/decoding-operations.ts";
import { productAddOp } from "../fusion/operations.ts";
import { missingDevice } from "../testing.ts";

const missing = await missingDevice();

type Specs = Readonly<Record<string, TensorSpec>>;
type Values = Readonly<Record<string, { readonly shape: readonly number[]; readonly data: Float64Array | Int32Array }>>;
type DTypeName = "float32" | "bfloat16";

/** Relative to the largest element: float32 sums in another order; bfloat16 rounds between operations. */
const bounds = { float32: 2e-5, bfloat16: 2e-2 } as const;

const narrow = (dtype: DTypeName, ...shape: number[]): TensorSpec => ({ dtype, shape: f32(...shape).shape });

const nearestBfloat16 = (x: number) => fromBfloat16Bits(toBfloat16Bits(x));

function randomValue(spec: TensorSpec, name: string, scale: number): Values[string] {
  const shape = sizesOf(spec.shape);
  const count = shape.reduce((a, b) => a * b, 1);
  const values = Float64Array.from(new RandomStream(7, name).normal(count), (x) => scale * x);
  const round = spec.dtype === "bfloat16" ? nearestBfloat16 : Math.fround;
  return { shape, data: values.map(round) };
}

/** Sums of decays [B,C,H] fall from token to token within a block. */
function fallWithinBlocks(sums: Values[string] | undefined, heads: number, capacity: number): void {
  sums?.data.forEach((_, i) => {
    sums.data[i] = Math.fround(-0.01 * ((Math.floor(i / heads) % capacity) % 64));
  });
}

/** Angles that a small step does not take over a full turn. */
function keepFromZero(angles: Values[string] | undefined): void {
  angles?.data.forEach((x, i) => {
    angles.data[i] = Math.fround(1 + Math.abs(x));
  });
}

async function compare(
  backend: CudaBackend,
  graph: Graph,
  values: Values,
  bound: number,
  state: readonly string[] = [],
  constants: { readonly [name: string]: Float32Array } = {},
  // What the device has where it must not look, unlike the interpreter, which multiplies it by zero.
  givenValues = values,
) {
  const program = await backend.compile(graph, {
    state: Object.fromEntries(state.map((name) => [name, name])),
    constants,
  });
  const wanted = evaluate(graph, values);
  // Twice from the same inputs, since the kernels count blocks: both give the same bits.
  const before: Record<string, readonly number[]> = {};
  for (let run = 0; run < 2; run++) {
    const given = Object.entries(graph.inputs).filter(([name]) => constants[name] === undefined);
    const inputs = given.map(([name, spec]) => {
      const data = givenValues[name]?.data ?? [];
      const held =
        spec.dtype === "bfloat16"
          ? Uint16Array.from(data, toBfloat16Bits)
          : spec.dtype === "int32"
            ? Int32Array.from(data)
            : Float32Array.from(data);
      return [name, backend.tensor(spec, held)] as const;
    });
    const outputs = program.run(Object.fromEntries(inputs));
    for (const [name, tensor] of Object.entries(outputs)) {
      const read = [...(await tensor.read())];
      before[name] ??= read;
      expect(
        read.every((x, i) => x === before[name]?.[i]),
        name,
      ).toBe(true);
      const found = tensor.spec.dtype === "bfloat16" ? read.map(fromBfloat16Bits) : read;
      const other = wanted[name]?.data ?? [];
      let [worst, largest] = [0, 0];
      for (let i = 0; i < other.length; i++) {
        const difference = Math.abs((found[i] ?? Number.NaN) - (other[i] ?? 0));
        worst = Math.max(worst, difference);
        largest = Math.max(largest, Math.abs(other[i] ?? 0));
      }
      expect(found.length, name).toBe(other.length);
      expect(worst / largest, name).toBeLessThan(bound);
    }
    for (const [, tensor] of inputs) tensor.dispose();
  }
  program.close();
}

function graphOf(op: Op, inputs: Specs, attributes: Readonly<Record<string, unknown>>): Graph {
  return trace(inputs, (tensors) => applyOp(op, tensors, attributes) as Record<string, AnyTensor>) as unknown as Graph;
}

/** Tokens that the two rows hold before. */
const starts = [
  [0, 1],
  [63, 64],
  [65, 128],
  [127, 139],
] as const;

/** Beyond the page that both share. */
const pagedStarts = [
  [64, 65],
  [127, 128],
  [190, 70],
] as const;

for (const dtype of ["float32", "bfloat16"] as const) {
  for (const [D, S] of [
    [64, 0],
    [64, 16],
    [64, 32],
    [64, 64],
    [128, 0],
    [128, 32],
    [128, 128],
  ] as const) {
    for (const isPaged of [false, true])
      test(`a step of decoding in ${dtype}, D ${D} and S ${S}, ${isPaged ? "in pages" : "in a cache of its own"}, equals its composition`, async ({
        skip,
      }) => {
        if (missing !== undefined) return skip(`not run: no device (${missing})`);
        const [B, H, P] = [2, 3, 130];
        // Three pages for each sequence, of which both share the first.
        const [N, C] = isPaged ? [5, 64] : [B, 140];
        const token = (...shape: number[]) => narrow(dtype, B, 1, H, ...shape);
        const content: Specs = {
          q: token(D),
          k: token(D),
          v: token(D),
          start: i32(B),
          ...(isPaged ? { pages: i32(B, 3) } : {}),
          keys: narrow(dtype, N, C, H, D),
          values: narrow(dtype, N, C, H, D),
        };
        const tables: Specs = { cosine: f32(P, D / 2), sine: f32(P, D / 2) };
        const states: Specs = {
          ...{
            c: token(S),
            b: token(S),
            strength: f32(B, 1, H),
            bias: f32(H),
            phase: f32(B, 1, H, S / 2),
            lambda: f32(H),
          },
          ...{ importances: narrow(dtype, N, C, H, S), decays: f32(N, C, H), phases: f32(N, C, H, S / 2) },
        };
        const inputs = { ...content, ...tables, ...(S > 0 ? states : {}) };
        const graph = graphOf(decodeStepOp, inputs, { scale: D ** -0.5 });
        const caches = ["keys", "values", ...(S > 0 ? ["importances", "decays", "phases"] : [])];
        await using backend = await cuda();
        for (const start of isPaged ? pagedStarts : starts) {
          const values: Record<string, Values[string]> = {};
          for (const [name, spec] of Object.entries(inputs)) values[name] = randomValue(spec, name, 0.5);
          values.start = { shape: [B], data: Int32Array.from(start) };
          if (isPaged) values.pages = { shape: [B, 3], data: Int32Array.of(3, 0, 4, 3, 2, 1) };
          if (S > 0) {
            fallWithinBlocks(values.decays, H, C);
            keepFromZero(values.phases);
          }
          await compare(backend, graph, values, bounds[dtype], caches);
        }
      });
  }

  for (const [rows, k, n, wide] of [
    [1, 64, 5, 0],
    [1, 768, 3072, 204],
    [2, 768, 300, 12],
    [8, 768, 300, 0],
    [1, 2752, 200, 0],
    [3, 512, 9000, 0],
  ] as const) {
    const inputs: Specs = { x: narrow(dtype, rows, 1, k), norm: f32(k), weight: narrow(dtype, n, k) };
    test(`products of ${rows} rows of ${k} in ${dtype}, with what stands before and after them, equal their compositions`, async ({
      skip,
    }) => {
      if (missing !== undefined) return skip(`not run: no device (${missing})`);
      await using backend = await cuda();
      const check = (op: Op, specs: Specs, attributes: Readonly<Record<string, unknown>>, row?: Int32Array) => {
        const values = Object.fromEntries(
          Object.entries(specs).map(([name, spec]) => [name, randomValue(spec, name, name === "weight" ? 0.1 : 1)]),
        );
        if (row) values.row = { shape: [rows], data: row };
        return compare(backend, graphOf(op, specs, attributes), values, bounds[dtype]);
      };
      const epsilon = 1e-6;
      const second: Specs = wide > 0 ? { wideWeight: narrow(dtype, wide, k) } : {};
      await check(normProductOp, { ...inputs, ...second }, { epsilon, dtype });
      const three: Specs = { ...inputs, x: narrow(dtype, rows, 3, k), row: i32(rows) };
      await check(
        normProductOp,
        three,
        { epsilon, dtype: "float32" },
        Int32Array.from({ length: rows }, (_, i) => (i + 2) % 3),
      );
      await check(
        normProductOp,
        three,
        { epsilon, dtype, isFromZero: true },
        Int32Array.from({ length: rows }, (_, i) => (i % 2 === 0 ? -1 : 2)),
      );
      const { x, norm, weight } = inputs as { x: TensorSpec; norm: TensorSpec; weight: TensorSpec };
      await check(normGatesOp, { x, norm, gate: weight, up: weight }, { epsilon });
      await check(
        productAddOp,
        { a: x, b: weight, addend: narrow(dtype, rows, 1, n) },
        { transposeA: false, transposeB: true },
      );
    });
  }
}

const chunkWidths = [
  [64, 0],
  [64, 16],
  [64, 32],
  [64, 64],
  [64, 128],
  [128, 0],
  [128, 16],
  [128, 32],
  [128, 64],
  [128, 128],
] as const;

/** What two sequences hold, and how many tokens come. */
const chunks = [
  { T: 2, starts: [0, 1] },
  { T: 3, starts: [63, 64] },
  { T: 63, starts: [64, 0] },
  { T: 65, starts: [0, 63] },
  { T: 65, starts: [100, 64] },
  { T: 3, starts: [1000, 1] },
] as const;

/** Log decay of each token of each head: from hardly any to all that can be, and uneven. */
const fallOf = (token: number, head: number) =>
  -([0.0067, 0.3, 5][head % 3] ?? 0) * (0.25 + (1.5 * ((7 * token) % 11)) / 10);

for (const dtype of ["float32", "bfloat16"] as const)
  for (const [D, S] of chunkWidths)
    for (const isPaged of [false, true])
      test(`attention of a chunk in ${dtype}, D ${D} and S ${S}, ${isPaged ? "to pages" : "to a cache of its own"}, equals its composition`, async ({
        skip,
      }) => {
        if (missing !== undefined) return skip(`not run: no device (${missing})`);
        const [B, H] = [2, 3];
        await using backend = await cuda();
        for (const { T, starts } of chunks) {
          const M = Math.ceil((Math.max(...starts) + T) / 64);
          // In any order, with two that nobody has.
          const table = Array.from({ length: B * M }, (_, i) => (5 * i + 3) % (B * M + 2));
          // Not a whole number of blocks, but for pages.
          const [N, C] = isPaged ? [B * M + 2, 64] : [B, 64 * M - (Math.max(...starts) + T < 64 * M ? 1 : 0)];
          const keyAxes = isPaged ? [N, 64] : [B, C];
          const specs: Specs = {
            q: narrow(dtype, B, T, H, D),
            k: narrow(dtype, N, C, H, D),
            v: narrow(dtype, N, C, H, D),
            queryStart: i32(B),
            ...(isPaged ? { pages: i32(B, M) } : {}),
            ...(S > 0
              ? {
                  cRotated: narrow(dtype, B, T, H, S),
                  bRotated: narrow(dtype, N, C, H, S),
                  gQuery: f32(B, T, H),
                  gKey: f32(N, C, H),
                  lambda: f32(H),
                }
              : {}),
          };
          const values = Object.fromEntries(
            Object.entries(specs).map(([name, spec]) => [name, randomValue(spec, name, 0.7)]),
          );
          values.queryStart = { shape: [B], data: Int32Array.from(starts) };
          if (isPaged) values.pages = { shape: [B, M], data: Int32Array.from(table) };
          const rowOf = (batch: number, position: number) =>
            isPaged ? 64 * (table[batch * M + Math.floor(position / 64)] ?? 0) + (position % 64) : batch * C + position;
          const used = new Set<number>();
          for (const [batch, start] of starts.entries()) {
            const sums = new Array<number>(H).fill(0);
            for (let position = 0; position < start + T; position++) {
              const row = rowOf(batch, position);
              used.add(row);
              for (let head = 0; head < H; head++) {
                sums[head] = (position % 64 === 0 ? 0 : (sums[head] ?? 0)) + fallOf(position + batch, head);
                const g = Math.fround(sums[head] ?? 0);
                if (values.gKey) values.gKey.data[row * H + head] = g;
                if (values.gQuery && position >= start)
                  values.gQuery.data[(batch * T + position - start) * H + head] = g;
              }
            }
          }
          const given = { ...values };
          for (const name of ["k", "v", "bRotated", "gKey"]) {
            const value = values[name];
            if (!value) continue;
            const width = value.data.length / ((keyAxes[0] ?? 0) * (keyAxes[1] ?? 0));
            const isUsed = (i: number) => used.has(Math.floor(i / width));
            given[name] = { ...value, data: Float64Array.from(value.data, (x, i) => (isUsed(i) ? x : Number.NaN)) };
          }
          const op: Op = S > 0 ? decayAttentionOp : attentionOp;
          const graph = graphOf(op, specs, { scale: D ** -0.5, ...(S > 0 ? {} : { causal: true }) });
          await compare(backend, graph, values, bounds[dtype], [], {}, given);
        }
      });

for (const dtype of ["float32", "bfloat16"] as const)
  for (const [D, S] of chunkWidths)
    for (const isPaged of [false, true])
      test(`a chunk in ${dtype}, D ${D} and S ${S}, ${isPaged ? "in pages" : "in a cache of its own"}, with all that stands around its attention, equals its composition`, async ({
        skip,
      }) => {
        if (missing !== undefined) return skip(`not run: no device (${missing})`);
        const [B, H, M, P] = [2, 3, 5, 300];
        const [N, C] = isPaged ? [B * M, 64] : [B, 301];
        await using backend = await cuda();
        for (const { T, starts } of [
          { T: 2, starts: [62, 0] },
          { T: 63, starts: [1, 65] },
          // More than a block takes at once, and beyond the last angle that there is.
          { T: 150, starts: [0, 151] },
        ]) {
          const token = (...shape: number[]) => narrow(dtype, B, T, H, ...shape);
          const states: Specs = {
            ...{ c: token(S), b: token(S), strength: f32(B, T, H), bias: f32(H) },
            ...{ phase: f32(B, T, H, S / 2), lambda: f32(H) },
            ...{ importances: narrow(dtype, N, C, H, S), decays: f32(N, C, H), phases: f32(N, C, H, S / 2) },
          };
          const inputs: Specs = {
            ...{ q: token(D), k: token(D), v: token(D), start: i32(B) },
            ...(isPaged ? { pages: i32(B, M) } : {}),
            ...{ keys: narrow(dtype, N, C, H, D), values: narrow(dtype, N, C, H, D) },
            ...{ cosine: f32(P, D / 2), sine: f32(P, D / 2) },
            ...(S > 0 ? states : {}),
          };
          const values = Object.fromEntries(
            Object.entries(inputs).map(([name, spec]) => [name, randomValue(spec, name, 0.5)]),
          );
          values.start = { shape: [B], data: Int32Array.from(starts) };
          if (isPaged) values.pages = { shape: [B, M], data: Int32Array.of(3, 0, 4, 9, 1, 6, 2, 8, 5, 7) };
          if (S > 0) {
            fallWithinBlocks(values.decays, H, C);
            keepFromZero(values.phases);
          }
          const caches = ["keys", "values", ...(S > 0 ? ["importances", "decays", "phases"] : [])];
          await compare(backend, graphOf(decodeStepOp, inputs, { scale: D ** -0.5 }), values, bounds[dtype], caches);
        }
      });

/** Heads as wide as the kernels take them, and sizes that no number of blocks divides. */
function smallModel(family: "sisa" | "transformer", stateWidth: number, width: number, heads: number) {
  const config = preset(family, "50m", { vocabularySize: 1003, maximumLength: 300 });
  const small = { width, heads, feedForwardWidth: 336, mixers: config.mixers.slice(0, 2) };
  return languageModel({ ...config, ...small, ...(stateWidth > 0 ? { stateWidth } : {}) });
}

for (const [family, S, width, heads, B, isPaged] of [
  ["transformer", 0, 256, 4, 1, false],
  ["transformer", 0, 256, 4, 2, true],
  ["sisa", 16, 256, 4, 1, false],
  ["sisa", 32, 192, 3, 2, false],
  ["sisa", 32, 192, 3, 3, true],
  ["sisa", 64, 128, 2, 8, false],
  ["sisa", 128, 128, 2, 1, false],
  ["transformer", 0, 256, 2, 3, false],
  ["sisa", 32, 256, 2, 1, false],
] as const) {
  test(`a token of a ${family} with S ${S}, ${heads} heads of ${width / heads} and ${B} rows, ${isPaged ? "in pages" : "in caches of its own"}, equals its composition`, async ({
    skip,
  }) => {
    if (missing !== undefined) return skip(`not run: no device (${missing})`);
    const model = smallModel(family, S, width, heads);
    const [pages, capacity] = isPaged ? [5 * B, 64] : [B, 280];
    const whole = isPaged ? model.stepGraph({ pageSize: 64 }) : model.decodeGraph(B, capacity);
    const sizes = { B, T: 1, R: B, N: pages, M: 5 };
    const graph = simplify(inPrecision(whole as unknown as Graph, "bfloat16")).bind(isPaged ? sizes : { T: 1 });
    const caches = Object.keys(model.cacheSpecs());
    // As bfloat16 has them, so that what is compared is the step and not the weights.
    const parameters = Object.fromEntries(
      Object.entries(initialize(model, 3)).map(([name, data]) => [name, data.map(nearestBfloat16)]),
    );
    await using backend = await cuda();
    for (const first of [0, 63, 64, 255]) {
      const values: Record<string, Values[string]> = {};
      for (const [name, spec] of Object.entries(graph.inputs)) {
        const data = parameters[name];
        values[name] = data
          ? { shape: sizesOf(spec.shape), data: Float64Array.from(data) }
          : randomValue(spec, name, 0.5);
      }
      const rows = Array.from({ length: B }, (_, row) => row);
      const numbers = (count: number, of: (index: number) => number) =>
        Int32Array.from({ length: count }, (_, i) => of(i));
      values.ids = { shape: [B, 1], data: Int32Array.from(rows, (row) => 31 * row + 7) };
      values.start = { shape: [B], data: Int32Array.from(rows, (row) => first + row) };
      if (isPaged) {
        values.places = { shape: [B], data: Int32Array.from(rows) };
        values.pages = { shape: [B, 5], data: numbers(pages, (i) => (7 * i + 3) % pages) };
      } else values.last = { shape: [B], data: new Int32Array(B) };
      for (const [name, value] of Object.entries(values)) {
        if (/[.]decay$/.test(name)) fallWithinBlocks(value, heads, capacity);
        if (/[.]phase$/.test(name)) keepFromZero(value);
      }
      await compare(backend, graph, values, bounds.bfloat16, caches, parameters);
    }
  });
}

test("a row that is not there, and a position beyond the cache, are named", async ({ skip }) => {
  if (missing !== undefined) return skip(`not run: no device (${missing})`);
  await using backend = await cuda();
  const specs: Specs = { x: f32(1, 3, 64), norm: f32(64), weight: f32(8, 64), row: i32(1) };
  const program = await backend.compile(graphOf(normProductOp, specs, { epsilon: 1e-6, dtype: "float32" }));
  const inputs = Object.entries(specs).map(([name, spec]) => [name, backend.tensor(spec)] as const);
  const all = Object.fromEntries(inputs);
  if (all.row) backend.write(all.row, Int32Array.of(3));
  await expect(program.run(all).value?.read()).rejects.toThrow("expected ids from 0 to 2, got 3");
  const step: Specs = {
    q: f32(1, 1, 2, 64),
    k: f32(1, 1, 2, 64),
    v: f32(1, 1, 2, 64),
    start: i32(1),
    keys: f32(1, 9, 2, 64),
    values: f32(1, 9, 2, 64),
  };
  const decode = await backend.compile(graphOf(decodeStepOp, step, { scale: 1 }), {
    state: { keys: "keys", values: "values" },
  });
  const given = Object.fromEntries(Object.entries(step).map(([name, spec]) => [name, backend.tensor(spec)] as const));
  if (given.start) backend.write(given.start, Int32Array.of(9));
  await expect(decode.run(given).value?.read()).rejects.toThrow("expected rows within 0 to 8, got 9");
  const inPages: Specs = { ...step, keys: f32(2, 64, 2, 64), values: f32(2, 64, 2, 64), pages: i32(1, 2) };
  const paged = await backend.compile(graphOf(decodeStepOp, inPages, { scale: 1 }), {
    state: { keys: "keys", values: "values" },
  });
  const tensors = Object.fromEntries(
    Object.entries(inPages).map(([name, spec]) => [name, backend.tensor(spec)] as const),
  );
  if (tensors.start) backend.write(tensors.start, Int32Array.of(70));
  if (tensors.pages) backend.write(tensors.pages, Int32Array.of(1, 2));
  await expect(paged.run(tensors).value?.read()).rejects.toThrow("expected pages from 0 to 1, got 2");
  for (const [specs, start, message] of [
    [step, 7, "expected rows within 0 to 8, got 7 to 9"],
    [inPages, 62, "expected pages from 0 to 1, got 2"],
  ] as const) {
    const chunk = { ...specs, q: f32(1, 3, 2, 64), k: f32(1, 3, 2, 64), v: f32(1, 3, 2, 64) };
    const several = await backend.compile(graphOf(decodeStepOp, chunk, { scale: 1 }), {
      state: { keys: "keys", values: "values" },
    });
    const entries = Object.entries(chunk).map(([name, spec]) => [name, backend.tensor(spec)] as const);
    const of = Object.fromEntries(entries);
    if (of.start) backend.write(of.start, Int32Array.of(start));
    if (of.pages) backend.write(of.pages, Int32Array.of(1, 2));
    await expect(several.run(of).value?.read()).rejects.toThrow(message);
  }
});
