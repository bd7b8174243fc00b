// Where the time of a program goes on the onnxruntime backend, by our operations.
// npm run bench -- profile PROGRAM [--family sisa] [--size 5m] [--vocabulary 4096] [--form exact] [--threads 2] [--runs 10] [--rows 30]
// PROGRAM is forward, gradients, update, prefill or decode (with --context 512), or step, the server's of --lanes 8 sequences.

import { parseArgs } from "node:util";
import {
  Decoder,
  type DeviceTensor,
  type Family,
  initialize,
  languageModel,
  type PresetSize,
  parameterCount,
  preset,
  type SisaForm,
  simplify,
} from "@sisa/core";
import { onnxruntime } from "@sisa/onnx";
import { Slots } from "../packages/serve/src/engine/slots.ts";
import { resolveSettings } from "../packages/train/src/config/settings.ts";
import { accumulateGraph, updateGraph } from "../packages/train/src/training-graphs.ts";
import { type Profile, Profiler, profileText, withoutFirst } from "./support/profiling.ts";

const programs = ["forward", "gradients", "update", "prefill", "decode", "step"];

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      family: { type: "string", default: "sisa" },
      size: { type: "string", default: "5m" },
      vocabulary: { type: "string", default: "4096" },
      form: { type: "string", default: "exact" },
      batch: { type: "string", default: "8" },
      length: { type: "string", default: "256" },
      context: { type: "string", default: "512" },
      lanes: { type: "string", default: "8" },
      threads: { type: "string", default: "2" },
      runs: { type: "string", default: "10" },
      rows: { type: "string", default: "30" },
    },
  });
  const [program = ""] = positionals;
  if (!programs.includes(program)) {
    process.stderr.write(`profile: expected one of ${programs.join(", ")}, got "${program}"\n`);
    return 2;
  }
  const [runs, B, T, context] = [values.runs, values.batch, values.length, values.context].map(Number) as [
    number,
    number,
    number,
    number,
  ];
  const config = preset(values.family as Family, values.size as PresetSize, {
    vocabularySize: Number(values.vocabulary),
    form: values.form as SisaForm,
  });
  const model = languageModel(config);
  const profiler = new Profiler();
  await using backend = await onnxruntime({ threads: Number(values.threads) });
  const weights = initialize(model, 1);
  const tokens = (count: number) =>
    Int32Array.from({ length: count }, (_, index) => (index * 7919) % config.vocabularySize);

  if (program === "prefill" || program === "decode") {
    await using decoder = await Decoder.create({ model, parameters: weights, backend, capacity: context + 64 });
    const prompt = [...tokens(context)];
    const first = program === "prefill" ? runs : 1;
    for (let run = 0; run < first; run++) await decoder.append([prompt], [0]);
    if (program === "decode") for (let run = 0; run < runs; run++) await decoder.append([[1]], [context + run]);
    show(profiler, Number(values.rows), program === "decode" ? 1 : 0);
    return 0;
  }

  if (program === "step") {
    const slots = Number(values.lanes);
    await using held = await Slots.create({
      model,
      parameters: weights,
      backend,
      slots,
      contextLength: context + runs,
    });
    const sequences = Array.from({ length: slots }, () => [...tokens(context)]);
    for (const [slot, sequence] of sequences.entries()) await held.run([{ slot, tokens: sequence, count: context }]);
    for (let run = 0; run < runs; run++) {
      for (const sequence of sequences) sequence.push(1);
      await held.run(sequences.map((sequence, slot) => ({ slot, tokens: sequence, count: 1 })));
    }
    show(profiler, Number(values.rows), 0);
    return 0;
  }

  const settings = resolveSettings({ steps: 1000, gradientAccumulation: 1 }, { parameterCount: parameterCount(model) });
  const { graph, state } =
    program === "forward"
      ? { graph: simplify(model.lossGraph()), state: {} }
      : program === "gradients"
        ? accumulateGraph(model, 1)
        : updateGraph(model, settings);
  const bound = program === "update" ? graph : graph.bind({ B, T });
  const executable = await backend.compile(bound, { state });
  const inputs: Record<string, DeviceTensor> = {};
  for (const [name, spec] of Object.entries(bound.inputs)) {
    const ids = spec.dtype === "int32" ? tokens(B * T) : undefined;
    inputs[name] = backend.tensor(spec, weights[name] ?? (name === "rates" ? Float32Array.of(1e-3, 0.1, 0.05) : ids));
  }
  for (let run = 0; run < runs; run++) {
    const outputs: Record<string, DeviceTensor> = executable.run(inputs);
    await Object.values(outputs).at(-1)?.read();
  }
  show(profiler, Number(values.rows), 0);
  return 0;
}

/** The profile of the session that ran longest; `skip` leaves out the first runs, which did something else. */
function show(profiler: Profiler, rows: number, skip: number): void {
  const time = ({ runs }: Profile) => runs.reduce((sum, { ms }) => sum + ms, 0);
  const longest = profiler.finish().reduce((a, b) => (time(b) > time(a) ? b : a));
  process.stdout.write(`${profileText(withoutFirst(longest, skip), rows)}\n`);
}

process.exitCode = await main();
