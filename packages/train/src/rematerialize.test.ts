// Computing values twice changes no gradient, and holds less.
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { evaluate, type Graph, initialize, sizesOf } from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { build } from "esbuild";
import { expect, it } from "vitest";
import { stateOf, tinyModel, tinyTrainer } from "../test/tiny.ts";
import { accumulateGraph } from "./training-graphs.ts";

it("gives the same loss and gradients, to the bit, from clones of what is inside layers", () => {
  const parameters = initialize(tinyModel(), 0);
  const results = (["none", "layers"] as const).map((policy) => {
    const graph: Graph = accumulateGraph(tinyModel(), 1, "float32", policy).graph.bind({ B: 2, T: 8 });
    const ids = Int32Array.from({ length: 16 }, (_, index) => (index * 5) % 257);
    const inputs = Object.fromEntries(
      Object.entries(graph.inputs).map(([name, { shape }]) => [
        name,
        { shape: sizesOf(shape), data: Float64Array.from(parameters[name] ?? ids) },
      ]),
    );
    const clones = graph.nodes.flatMap(({ op, tag }) => (tag === "rematerialize" ? [op.name] : []));
    return { outputs: evaluate(graph, inputs), clones };
  });
  const [none, layers] = results;
  expect(layers?.outputs).toEqual(none?.outputs);
  expect(none?.clones).toEqual([]);
  expect(layers?.clones).toEqual(expect.arrayContaining(["rmsNorm", "matmul", "swiglu"]));
  expect(layers?.clones).not.toContain("linearCrossEntropy");
});

it("trains to the same parameters on onnxruntime, over micro-batches", async () => {
  await using backend = await onnxruntime({ threads: 1 });
  const states = [];
  for (const rematerialize of ["none", "layers"]) {
    await using trainer = await tinyTrainer(backend, { rematerialize, gradientAccumulation: 2 });
    await trainer.advance(3);
    states.push(await stateOf(trainer));
  }
  for (const [name, values] of Object.entries(states[0] ?? {})) {
    const others = states[1]?.[name] ?? new Float32Array();
    expect(others).toHaveLength(values.length);
    for (const [index, value] of values.entries()) expect(others[index]).toBeCloseTo(value, 5);
  }
});

it("holds less at the peak of a training step on onnxruntime", async () => {
  // Inside the package, so that the program finds onnxruntime-node.
  const cache = join(import.meta.dirname, "../node_modules/.cache");
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, "peak-"));
  try {
    const outfile = join(folder, "child.mjs");
    await build({
      entryPoints: [join(import.meta.dirname, "../test/peak-child.ts")],
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "es2022",
      conditions: ["@sisa/source"],
      external: ["onnxruntime-node", "onnxruntime-web"],
      logLevel: "silent",
    });
    const measure = async (policy: string) => {
      const { stdout } = await promisify(execFile)(process.execPath, [outfile, policy], { timeout: 120_000 });
      return JSON.parse(stdout) as { kilobytes: number; losses: number[] };
    };
    const none = await measure("none");
    const layers = await measure("layers");
    expect(layers.losses[2]).toBeCloseTo(none.losses[2] ?? Number.NaN, 4);
    expect(none.kilobytes - layers.kilobytes).toBeGreaterThan(150 * 1024);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 250_000);
