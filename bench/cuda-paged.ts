// A token of several sequences at once on one GPU: caches in pages of one pool beside a cache [B,C,...] and beside caches of
// their own for each sequence, as the server has them on other backends. Logits are compared first. Then chunks of a prompt of
// one sequence in pages. Needs an NVIDIA GPU.
//   node bench/run.mjs cuda-paged [--batches 1,8,32] [--context 1024] [--precision bfloat16] [--size 152m]
//     [--lanes 8], sequences with a cache for each
//     [--chunks 64,256,512] [--before 0,256,1024], tokens of a chunk, and tokens held before it
import { parseArgs } from "node:util";
import {
  type DeviceTensor,
  type Executable,
  fromBfloat16Bits,
  type Graph,
  type GraphInputs,
  type GraphOutputs,
  i32,
  initialize,
  inPrecision,
  languageModel,
  type Precision,
  type PresetSize,
  preset,
  RandomStream,
  simplify,
  toBfloat16Bits,
} from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import type { CudaExecutable } from "../packages/kernels-cuda/src/executable.ts";
import { laneCache, laneGraph } from "../packages/serve/src/engine/lane-graph.ts";

const { values: options } = parseArgs({
  options: {
    batches: { type: "string", default: "1,8,32" },
    context: { type: "string", default: "1024" },
    precision: { type: "string", default: "bfloat16" },
    size: { type: "string", default: "152m" },
    lanes: { type: "string", default: "8" },
    chunks: { type: "string", default: "64,256,512" },
    before: { type: "string", default: "0,256,1024" },
  },
});
const pageSize = 64;
const numbers = (list: string) => list.split(",").filter(Boolean).map(Number);
const context = Number(options.context);
const chunks = numbers(options.chunks).flatMap((T) => numbers(options.before).map((start) => ({ T, start })));
const longest = Math.max(context + pageSize, ...chunks.map(({ T, start }) => T + start));
const capacity = Math.ceil(longest / pageSize) * pageSize;
const M = capacity / pageSize;
const precision = options.precision as Precision;
const model = languageModel(
  preset("sisa", options.size as PresetSize, { vocabularySize: 50_277, maximumLength: capacity }),
);
const parameters = initialize(model, 1);
const names = Object.keys(model.cacheSpecs());
const random = new RandomStream(3, "numbers");
await using backend = await cuda();
const line = (text: string) => process.stdout.write(`${text}\n`);
line(`${backend.description}; SISA ${options.size}, ${precision}, each sequence at position ${context}`);

type Program = Executable<GraphInputs, GraphOutputs>;

async function compile(graph: Graph, caches: readonly string[]): Promise<Program> {
  const state = Object.fromEntries(caches.map((name) => [name, name]));
  return backend.compile(graph, { state, constants: parameters });
}

/** What a cache entry holds, as all layers have it. */
const kindOf = (name: string) => name.slice(name.lastIndexOf(".") + 1);

/** Numbers of a kind of entry for each sequence, [capacity * row]: sums of decay fall, the rest is small. */
function rowsOf(name: string, B: number): readonly Float32Array[] {
  const rest = model.cacheSpecs(1, 1)[name]?.shape.slice(2) ?? [];
  const row = rest.reduce((product, size) => product * (size.value ?? 1), 1);
  const noise = Float32Array.from({ length: 65_537 }, (_, i) => random.uniform(i));
  return Array.from({ length: B }, (_, b) =>
    Float32Array.from({ length: capacity * row }, (_, i) => {
      const value = noise[(b * 7919 + i) % noise.length] ?? 0;
      if (name.endsWith("decay")) return -0.0067 * ((Math.floor(i / row) % pageSize) + 1);
      return name.endsWith("phase") ? 6 * value : value - 0.5;
    }),
  );
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const size = parts[0]?.length ?? 0;
  const all = new Float32Array(size * parts.length);
  parts.forEach((part, index) => {
    all.set(part, index * size);
  });
  return all;
}

async function measure(name: string, program: Program, inputs: Readonly<Record<string, DeviceTensor>>) {
  const logits = program.run(inputs).logits;
  const read = Array.from((await logits?.read()) ?? []);
  const values = logits?.spec.dtype === "bfloat16" ? read.map(fromBfloat16Bits) : read;
  for (let run = 0; run < 3; run++) program.run(inputs);
  const { milliseconds, steps } = await (program as unknown as CudaExecutable<never, never>).profile();
  /** Microseconds in kernels of these names, by events. */
  const timeIn = (kernels: RegExp) =>
    1000 *
    steps
      .filter(({ step }) => step.kind === "kernel" && kernels.test(step.kernel))
      .reduce((sum, step) => sum + step.milliseconds, 0);
  program.close();
  return { name, microseconds: 1000 * milliseconds, launches: steps.length, timeIn, values };
}

function difference(a: readonly number[], b: readonly number[]): number {
  let [square, size] = [0, 0];
  b.forEach((value, i) => {
    square += ((a[i] ?? Number.NaN) - value) ** 2;
    size += value ** 2;
  });
  return Math.sqrt(square / size);
}

line("| sequences | caches | microseconds a step | launches | in attention, by events | logits off by norm |");
line("|---|---|---|---|---|---|");
for (const B of numbers(options.batches)) {
  const tokens = { ids: Array.from({ length: B }, (_, b) => 5 + b), start: new Array<number>(B).fill(context) };
  const ints = (graph: Graph, name: string, data: readonly number[]) => {
    const spec = graph.inputs[name];
    return spec === undefined ? [] : [[name, backend.tensor(spec, Int32Array.from(data))] as const];
  };
  const given = (graph: Graph) =>
    Object.fromEntries([
      ...ints(graph, "ids", tokens.ids),
      ...ints(graph, "start", tokens.start),
      ...ints(graph, "last", new Array<number>(B).fill(0)),
      ...ints(graph, "places", [...tokens.ids.keys()]),
    ]);
  const kinds = new Map<string, readonly Float32Array[]>();
  for (const name of names) if (!kinds.has(kindOf(name))) kinds.set(kindOf(name), rowsOf(name, B));
  const results: Awaited<ReturnType<typeof measure>>[] = [];
  const run = async (
    name: string,
    graph: Graph,
    caches: readonly (readonly [name: string, data: Float32Array])[],
    more: Readonly<Record<string, DeviceTensor>> = {},
  ) => {
    const inputs: Record<string, DeviceTensor> = { ...given(graph), ...more };
    const narrow = new Map<Float32Array, Uint16Array>();
    for (const [cache, data] of caches) {
      const spec = graph.inputs[cache];
      if (spec === undefined) throw new Error(`no input ${cache}`);
      if (spec.dtype === "bfloat16" && !narrow.has(data)) narrow.set(data, Uint16Array.from(data, toBfloat16Bits));
      inputs[cache] = backend.tensor(spec, spec.dtype === "bfloat16" ? narrow.get(data) : data);
    }
    const program = await compile(
      graph,
      caches.map(([cache]) => cache),
    );
    results.push(await measure(name, program, inputs));
    for (const tensor of Object.values(inputs)) tensor.dispose();
  };
  /** The same data for every layer. */
  const forAll = (make: (rows: readonly Float32Array[]) => Float32Array) => {
    const made = new Map([...kinds].map(([kind, rows]) => [kind, make(rows)] as const));
    return names.map((name) => [name, made.get(kindOf(name)) ?? new Float32Array()] as const);
  };

  const own = simplify(inPrecision(model.stepGraph(), precision));
  await run("[B,C,...]", own.bind({ B, T: 1, R: B, C: capacity }) as unknown as Graph, forAll(joined));

  const N = B * M;
  const order = Array.from({ length: N }, (_, page) => [random.uniform(page), page] as const)
    .sort(([a], [b]) => a - b)
    .map(([, page]) => page);
  const open = simplify(inPrecision(model.stepGraph({ pageSize }), precision));
  const paged = open.bind({ B, T: 1, R: B, N, M }) as unknown as Graph;
  const pools = forAll((rows) => {
    const size = (rows[0]?.length ?? 0) / M;
    const pool = new Float32Array(N * size);
    order.forEach((page, place) => {
      const from = rows[Math.floor(place / M)];
      if (from) pool.set(from.subarray((place % M) * size, ((place % M) + 1) * size), page * size);
    });
    return pool;
  });
  await run("pages", paged, pools, Object.fromEntries(ints(paged, "pages", order)));

  if (B > 1 && numbers(options.lanes).includes(B)) {
    const graph = laneGraph(inPrecision(model.stepGraph(), precision), names, { lanes: B, capacity }, false);
    const each = names.flatMap((name) =>
      (kinds.get(kindOf(name)) ?? []).map((rows, lane) => [laneCache(lane, name), rows] as const),
    );
    await run("one for each", graph.bind({ T: 1, R: B }), each);
  }
  for (const { name, microseconds, launches, timeIn, values } of results) {
    const off = difference(values, results[0]?.values ?? []);
    line(
      `| ${B} | ${name} | ${microseconds.toFixed(1)} | ${launches} | ${timeIn(/^decodeStep/).toFixed(1)} | ${off.toExponential(2)} |`,
    );
  }
}

line("| tokens of a chunk | tokens before it | microseconds | in attention, by events | before it | launches |");
line("|---|---|---|---|---|---|");
const N = capacity / pageSize;
const pools = Object.fromEntries(
  names.map((name) => {
    const spec = inPrecision(model.stepGraph({ pageSize }), precision).bind({ B: 1, T: 1, R: 1, N, M: N }).inputs[name];
    const [rows = new Float32Array()] = rowsOf(name, 1);
    if (spec === undefined) throw new Error(`no input ${name}`);
    return [name, backend.tensor(spec, spec.dtype === "bfloat16" ? Uint16Array.from(rows, toBfloat16Bits) : rows)];
  }),
);
for (const { T, start } of chunks) {
  const graph = inPrecision(model.stepGraph({ pageSize }), precision).bind({ B: 1, T, R: 1, N, M: N });
  const ints = (data: readonly number[], ...shape: number[]) => backend.tensor(i32(...shape), Int32Array.from(data));
  const inputs = {
    ids: ints(
      Array.from({ length: T }, (_, t) => 5 + t),
      1,
      T,
    ),
    start: ints([start], 1),
    places: ints([T - 1], 1),
    pages: ints([...Array(N).keys()].reverse(), 1, N),
    ...pools,
  };
  const program = await compile(simplify(graph as unknown as Graph), names);
  const { microseconds, launches, timeIn } = await measure("chunk", program, inputs);
  const times = [/^(cachedAttention|attentionTiles|joinSpans)/, /^(continueStates|prepareTokens)/].map(timeIn);
  line(`| ${T} | ${start} | ${[microseconds, ...times].map((time) => time.toFixed(1)).join(" | ")} | ${launches} |`);
}
