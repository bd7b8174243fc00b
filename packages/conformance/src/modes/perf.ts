// Mode perf: how fast a backend runs the cases that are sized for it. Not part of any test.

import type { Backend, DeviceTensor, Graph } from "@sisa/core";
import { bytesOf, elementsOf } from "@sisa/core";
import type { Case } from "../case.ts";
import { makeInputs, toTyped } from "../data.ts";
import { flopsOf, graphOf } from "../program.ts";
import { type Outcome, outcomeOf } from "./run.ts";

const warmUps = 2;
const shortestSeconds = 0.4;
const fewestRuns = 5;

/** Times one case that is marked `perf`; the note says GFLOP/s, and GB/s of inputs and outputs. */
export async function measure(
  backend: Backend,
  op: string,
  test: Case,
): Promise<(Outcome & { readonly note: string }) | undefined> {
  if (!test.perf) return undefined;
  try {
    const notes: string[] = [];
    for (const sizes of test.sizes) {
      const symbolic = graphOf(test);
      const graph = Object.keys(sizes).length > 0 ? symbolic.bind(sizes) : symbolic;
      const values = makeInputs(`${op}/${test.name}`, test.inputs, sizes);
      const executable = await backend.compile(graph);
      const inputs: Record<string, DeviceTensor> = {};
      try {
        for (const [name, spec] of Object.entries(graph.inputs)) {
          const value = values[name];
          if (value) inputs[name] = backend.tensor(spec, toTyped(spec, value));
        }
        const seconds = await secondsPerRun(() => executable.run(inputs));
        const flops = flopsOf(graph);
        const gigaflops = (flops / seconds / 1e9).toPrecision(3);
        const gigabytes = (bytesMoved(graph) / seconds / 1e9).toPrecision(3);
        notes.push(`${(seconds * 1e3).toPrecision(3)} ms, ${gigaflops} GFLOP/s, ${gigabytes} GB/s`);
      } finally {
        for (const tensor of Object.values(inputs)) tensor.dispose();
        executable.close();
      }
    }
    return { status: "passed", note: notes.join("; ") };
  } catch (error) {
    return { ...outcomeOf(error), note: "" };
  }
}

/** Median over runs, each ended by reading one output. */
async function secondsPerRun(run: () => { readonly [name: string]: DeviceTensor }): Promise<number> {
  const once = async () => {
    const start = performance.now();
    const [output] = Object.values(run());
    await output?.read();
    return (performance.now() - start) / 1e3;
  };
  for (let i = 0; i < warmUps; i++) await once();
  const times: number[] = [];
  let total = 0;
  while (total < shortestSeconds || times.length < fewestRuns) {
    const seconds = await once();
    times.push(seconds);
    total += seconds;
  }
  times.sort((a, b) => a - b);
  return times[Math.floor(times.length / 2)] ?? Number.NaN;
}

function bytesMoved(graph: Graph): number {
  const specs = [...Object.values(graph.inputs), ...Object.values(graph.outputs)];
  return specs.reduce((total, { dtype, shape }) => total + bytesOf(dtype) * (elementsOf(shape).value ?? 0), 0);
}
