import { cp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it, vi } from "vitest";
import cpuSmoke from "../../../../experiments/cpu-smoke.ts";
import paper50m from "../../../../experiments/paper-50m.ts";
import { planExperiment } from "../experiment/plan.ts";
import { experimentFolder } from "../experiment/run.ts";
import { run, temporaryFolder, tinyConfig, tinyText } from "../testing.ts";

const { preset: _, size: __, vocabularySize: ___, ...sizes } = tinyConfig.model;

const experiment = {
  families: ["sisa", "transformer"],
  sizes: ["1m"],
  seeds: [0, 1],
  common: { model: sizes, microBatchSize: 2, evaluateEvery: 2, saveEvery: 2 },
  workloads: {
    text: {
      data: tinyConfig.data,
      steps: 4,
      tasks: ["niah:several"],
      taskOptions: { lengths: [64], needles: 1, limit: 2 },
    },
    recall: {
      data: { synthetic: "mqar", sequenceLength: 16, vocabularySize: 20 },
      tokens: 100,
      finalTasks: ["mqar"],
      taskOptions: { lengths: [16], limit: 5 },
    },
  },
};

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  await writeFile(join(folder, "corpus.txt"), tinyText);
  await writeFile(join(folder, "smoke.json"), JSON.stringify(experiment));
});

describe("sisa experiment", () => {
  it("writes where output says, from the current folder on where that is no whole path", () => {
    const folderOf = (output: string) => experimentFolder(planExperiment({ ...experiment, output }, "smoke"), folder);
    expect(folderOf("mine")).toBe(join(folder, "mine/smoke"));
    expect(folderOf(join(folder, "../elsewhere"))).toBe(join(folder, "../elsewhere/smoke"));
  });

  it("trains every model on every workload with every seed, and writes one table and a report", async () => {
    const { code, json } = await run(folder, ["experiment", "smoke.json", "--json"]);
    expect(code).toBe(0);
    const { stdout } = await run(folder, ["experiment", "smoke.json"]);
    expect(stdout).toMatch(/\| sisa 1m \| 0, 1 \| 3,\d{3} \| \d\.\d{4} ± \d\.\d{4} \|/);
    const rows = json?.rows as { workload: string; model: string; seeds: number[]; values: Record<string, unknown> }[];
    expect(rows.map(({ workload, model }) => [workload, model])).toEqual([
      ["text", "sisa 1m"],
      ["text", "transformer 1m"],
      ["recall", "sisa 1m"],
      ["recall", "transformer 1m"],
    ]);
    const costs = ["tokensPerSecond", "peakMemoryBytes", "decodeMs"];
    expect(Object.keys(rows[0]?.values ?? {})).toEqual(
      expect.arrayContaining(["heldOutLoss", "bitsPerByte", "niah:several accuracy", ...costs]),
    );
    expect(Object.keys(rows[2]?.values ?? {})).toEqual(
      expect.arrayContaining(["heldOutLoss", "mqar accuracy", "mqar all", ...costs]),
    );
    const place = join(folder, "runs/smoke");
    expect(await readFile(join(place, "table.md"), "utf8")).toContain("### recall");
    expect(await readFile(join(place, "report.html"), "utf8")).toContain("niah:several accuracy, mean over seeds");
    const metrics = await readFile(join(place, "text/sisa-1m-seed0/metrics.jsonl"), "utf8");
    expect(metrics).toMatch(/"type":"evaluation","step":2,.*"measures":\{"niah:several accuracy":/);
  });

  it("does nothing twice, and runs again what has no result", async () => {
    const copy = await temporaryFolder();
    await cp(folder, copy, { recursive: true });
    // Paths are part of what a run is, so the copy is another experiment until they agree.
    const moved = await run(copy, ["experiment", "smoke.json"]);
    expect(moved).toMatchObject({
      code: 3,
      error: expect.stringContaining("holds a run of this name with other settings"),
    });

    const place = join(folder, "runs/smoke/recall/sisa-1m-seed1");
    const before = JSON.parse(await readFile(join(place, "result.json"), "utf8"));
    await rm(join(place, "result.json"));
    await rm(join(place, "checkpoints"), { recursive: true });
    const again = await run(folder, ["experiment", "smoke.json"]);
    expect(again.stderr).toContain("recall/sisa-1m-seed1 (6 of 8)");
    expect(again.stderr).not.toContain("recall/sisa-1m-seed0");
    const after = JSON.parse(await readFile(join(place, "result.json"), "utf8"));
    expect(after.tasks).toEqual(before.tasks);
    expect(after.values.heldOutLoss).toBe(before.values.heldOutLoss);
    expect((await readdir(place)).sort()).toEqual([
      "checkpoints",
      "evaluation",
      "memory.json",
      "metrics.jsonl",
      "result.json",
      "run.json",
    ]);
  });

  it("saves at Ctrl-C, and goes on to the same result", async () => {
    const words = ["experiment", "smoke.json", "--run", "text/sisa-1m-seed0"];
    const place = join(folder, "runs/smoke/text/sisa-1m-seed0");
    const before = JSON.parse(await readFile(join(place, "result.json"), "utf8"));
    await rm(place, { recursive: true });
    const stopped = await run(folder, words, {
      onProgress: (text, interrupt) => {
        if (text.includes("step 2: held-out")) interrupt("SIGINT");
      },
    });
    expect(stopped).toMatchObject({ code: 130, error: expect.stringContaining("the same command goes on from there") });
    expect((await run(folder, words)).code).toBe(0);
    const after = JSON.parse(await readFile(join(place, "result.json"), "utf8"));
    expect(after.values.heldOutLoss).toBe(before.values.heldOutLoss);
    expect(after.values.measures).toEqual(before.values.measures);
  });

  it.each([
    [{}, "families: expected a list of at least one"],
    [{ ...experiment, sizes: [] }, "sizes: expected a list of at least one, got []"],
    [{ ...experiment, workloads: {} }, "workloads: expected an object with a workload under each name"],
    [{ ...experiment, seds: [1] }, '"seds" is not a field of an experiment'],
    [{ ...experiment, families: ["sisa", "sisa"] }, "two runs are called text/sisa-1m-seed0"],
    [{ ...experiment, workloads: { "a/b": {} } }, 'workloads: expected letters, digits, ".", "_" and "-", got "a/b"'],
    [
      { ...experiment, workloads: { a: { ...tinyConfig, model: sizes, steps: 1, tokens: 2 } } },
      "tokens and steps contradict",
    ],
    [{ ...experiment, workloads: { a: { data: tinyConfig.data } } }, "expected tokens or steps, got neither"],
    [{ ...experiment, workloads: { a: { data: tinyConfig.data, steps: 1, tasks: ["chess"] } } }, 'got "chess"'],
    [{ ...experiment, workloads: { a: { data: { txt: "a" }, steps: 1 } } }, '"data.txt" is not a field'],
    [{ ...experiment, workloads: { a: { steps: 1, precision: "paper", backend: "reference" } } }, "float32 only"],
  ])("refuses %j", async (given, message) => {
    await writeFile(join(folder, "bad.json"), JSON.stringify(given));
    const { code, error } = await run(folder, ["experiment", "bad.json"]);
    expect(error).toContain(message);
    expect(code).toBe(2);
  });

  it("names the runs where none is meant", async () => {
    expect((await run(folder, ["experiment", "smoke.json", "--run", "x"])).error).toContain("text/sisa-1m-seed0, ");
    expect((await run(folder, ["experiment", "smoke.json", "--only", "chess"])).error).toContain(
      'no run holds "chess"',
    );
  });
});

describe("planExperiment", () => {
  it("lays workloads over what is common, and variants over both", () => {
    const { runs } = planExperiment(
      {
        ...experiment,
        seeds: [3],
        families: ["sisa", { name: "narrow", family: "sisa", stateWidth: 4 }],
      },
      "smoke",
    );
    expect(runs.map(({ id }) => id)).toEqual([
      "text/sisa-1m-seed3",
      "text/narrow-1m-seed3",
      "recall/sisa-1m-seed3",
      "recall/narrow-1m-seed3",
    ]);
    expect(runs[1]?.config).toMatchObject({
      model: { preset: "sisa", stateWidth: 4, layers: 2 },
      seed: 3,
      steps: 4,
      microBatchSize: 2,
    });
    // 100 tokens in steps of 2 x 16.
    expect(runs[2]?.config.steps).toBe(4);
  });
});

describe("the experiments that ship", () => {
  it("compare five families with three seeds on the CPU", () => {
    const { runs } = planExperiment(cpuSmoke, "cpu-smoke");
    expect(runs).toHaveLength(2 * 5 * 3);
    expect(runs.map(({ config }) => config.steps)).toEqual([...Array(15).fill(196), ...Array(15).fill(782)]);
  });

  it("train the paper's families to step 1000 in both precisions", () => {
    const { runs } = planExperiment(paper50m, "paper-50m");
    const families = ["transformer", "sisa", "mamba2", "mamba3"];
    expect(runs.map(({ id }) => id)).toEqual(
      ["bfloat16", "paper"].flatMap((workload) => families.map((family) => `${workload}/${family}-50m-seed0`)),
    );
    for (const { config, tasks } of runs) {
      expect(config).toMatchObject({ steps: 1000, batchTokens: 524_288, evaluateEvery: 250, backend: "cuda" });
      expect(tasks).toEqual(["niah", "lambada"]);
    }
    expect(runs.at(-1)?.config).toMatchObject({ precision: "paper", model: { form: "sdpa" } });
  });

  it.each([
    ["proof", ["bfloat16", "paper"], { steps: 100, batchTokens: 524_288, optimizer: { scheduleSteps: 9536 } }],
    ["short", ["text", "recall"], { steps: 1000, precision: "bfloat16" }],
    ["reduced", ["float32", "paper"], { steps: 8, backend: "onnxruntime" }],
  ])("are the same families where SISA_EXPERIMENT is %s", async (size, workloads, config) => {
    vi.stubEnv("SISA_EXPERIMENT", size);
    vi.resetModules();
    const { default: experiment } = await import("../../../../experiments/paper-50m.ts");
    vi.unstubAllEnvs();
    const { name, runs } = planExperiment(experiment, "");
    expect(name).toBe(`paper-50m-${size}`);
    expect([...new Set(runs.map(({ workload }) => workload))]).toEqual(workloads);
    expect(runs).toHaveLength(8);
    for (const run of runs) expect(run.config).toMatchObject(config);
  });
});
