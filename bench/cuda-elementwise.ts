// What elementwise kernels and norms reach of the memory's rate on one GPU, beside a copy by the driver.
//   node bench/run.mjs cuda-elementwise [--runs 20]
import { parseArgs } from "node:util";
import {
  add,
  bytesOf,
  cast,
  type DeviceTensor,
  f32,
  type Graph,
  RandomStream,
  reshape,
  rmsNorm,
  rmsNormBackwardOp,
  swiglu,
  swigluBackwardOp,
  type TensorSpec,
  toBfloat16Bits,
  trace,
} from "@sisa/core";
import { cuda } from "@sisa/kernels-cuda";
import { apply } from "../packages/core/src/graph/op.ts";
import { LaunchTimer } from "./support/launches.ts";
import { median, table } from "./support/statistics.ts";

const { values: options } = parseArgs({ options: { runs: { type: "string", default: "20" } } });
const runs = Number(options.runs);
/** 200 MB of bfloat16, four times the L2 cache. */
const [rows, width] = [131_072, 768];
const wide = f32(rows, width);
const narrow: TensorSpec<"float"> = { ...wide, dtype: "bfloat16" };
const weight = f32(width);
const attributes = { epsilon: 1e-6 };

const cases = {
  "copy, bfloat16": trace({ x: narrow }, ({ x }) => reshape(x, [rows * width])),
  "copy, float32": trace({ x: wide }, ({ x }) => reshape(x, [rows * width])),
  "add, bfloat16": trace({ a: narrow, b: narrow }, ({ a, b }) => add(a, b)),
  "add, float32": trace({ a: wide, b: wide }, ({ a, b }) => add(a, b)),
  "cast, bfloat16 to float32": trace({ x: narrow }, ({ x }) => cast(x, "float32")),
  "cast, float32 to bfloat16": trace({ x: wide }, ({ x }) => cast(x, "bfloat16")),
  swiglu: trace({ gate: narrow, up: narrow }, ({ gate, up }) => swiglu(gate, up)),
  "swiglu, backward": trace({ gate: narrow, up: narrow, gradient: narrow }, (given) =>
    apply(swigluBackwardOp, given, {}),
  ),
  rmsNorm: trace({ x: narrow, weight }, (given) => rmsNorm(given.x, given.weight)),
  "rmsNorm, backward": trace({ x: narrow, weight, gradient: narrow }, (given) =>
    apply(rmsNormBackwardOp, given, attributes),
  ),
} as const;

const bytesIn = (specs: { readonly [name: string]: TensorSpec }) =>
  Object.values(specs).reduce((sum, { dtype, shape }) => {
    return sum + bytesOf(dtype) * shape.reduce((count, { value }) => count * (value ?? 0), 1);
  }, 0);

await using backend = await cuda({ blocking: true });
const timer = new LaunchTimer(backend);
// Drawn once for 1/96 of them: drawing and rounding all takes longer than the runs.
const drawn = Float32Array.from(new RandomStream(1, "noise").normal(2 ** 20));
const rounded = Uint16Array.from(drawn, toBfloat16Bits);
const values = { float32: new Float32Array(rows * width), bfloat16: new Uint16Array(rows * width) };
for (let at = 0; at < rows * width; at += drawn.length) {
  values.float32.set(drawn, at);
  values.bfloat16.set(rounded, at);
}
const end = backend.tensor(f32(1));

const measured: string[][] = [];
for (const [name, made] of Object.entries(cases)) {
  const graph = made as unknown as Graph;
  const program = await backend.compile(graph);
  const given = Object.fromEntries(
    Object.entries(graph.inputs).map(([input, spec]) => {
      const data = values[spec.dtype as "float32"].subarray(0, bytesIn({ spec }) / bytesOf(spec.dtype));
      return [input, backend.tensor(spec, data)];
    }),
  );
  const milliseconds: number[] = [];
  for (let run = 0; run < runs; run++) {
    const launches = await timer.time(async () => {
      for (const output of Object.values(program.run(given)) as DeviceTensor[]) output.dispose();
      await end.read();
    });
    milliseconds.push(launches.reduce((sum, launch) => sum + launch.milliseconds, 0));
  }
  const time = median(milliseconds);
  const rate = (bytesIn(graph.inputs) + bytesIn(graph.outputs)) / time / 1e9;
  measured.push([name, time.toFixed(3), rate.toFixed(2)]);
  for (const tensor of Object.values(given)) tensor.dispose();
}
process.stdout.write(`[${rows},${width}], medians of ${runs}, by events\n\n${table(["", "ms", "TB/s"], measured)}\n`);
