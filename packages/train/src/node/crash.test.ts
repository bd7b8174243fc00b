// What is left of a run whose process ends at any moment: never less than the last checkpoint, and the same result.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { RandomStream, reference } from "@sisa/core";
import { directory, loadModel } from "@sisa/hub/node";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tinyData, tinyModel, tinySettings } from "../../test/tiny.ts";
import { openCheckpoint } from "../checkpoint.ts";
import { checkpointName, listCheckpoints } from "../checkpoint-folder.ts";
import type { MetricsRecord } from "../metrics/metrics.ts";
import { subfolder } from "../subfolder.ts";
import { type TrainingRun, train } from "../train.ts";
import { readMetrics } from "./metrics-file.ts";

const steps = 24;
let folder: string;
let program: string;
let straight: TrainingRun;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "sisa-crash-"));
  program = join(folder, "child.mjs");
  await build({
    entryPoints: [fileURLToPath(new URL("../../test/training-child.ts", import.meta.url))],
    outfile: program,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "es2022",
    conditions: ["@sisa/source"],
    logLevel: "silent",
  });
  straight = await train({
    model: tinyModel(),
    backend: reference(),
    data: tinyData(),
    ...tinySettings,
    steps,
    evaluateEvery: -1,
  });
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Starts the training process; resolves once it trains. */
async function start(run: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [program, run, String(steps)], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout ?? child, "data");
  return child;
}

const lossesOf = (records: readonly MetricsRecord[]): [number, number][] =>
  records.filter((record) => record.type === "step").map(({ step, loss }) => [step, loss]);

/** Step of the newest checkpoint, every byte of which is read and verified. */
async function newestWhole(run: string): Promise<number> {
  const storage = directory(run);
  const step = (await listCheckpoints(storage)).at(-1);
  if (step === undefined) return 0;
  await using checkpoint = await openCheckpoint(subfolder(storage, checkpointName(step)));
  for (const name of Object.keys(tinyModel().parameters)) {
    await checkpoint.read(name);
    await checkpoint.read(`firstMoment.${name}`);
    await checkpoint.read(`secondMoment.${name}`);
  }
  expect(checkpoint.metadata.step).toBe(step);
  return step;
}

describe("a training process", () => {
  it("that is killed at any moment loses no checkpoint, and ends with the result of one that was not", async () => {
    const run = join(folder, "killed");
    const random = new RandomStream(1, "moments");
    let reached = 0;
    for (let round = 0; round < 5; round++) {
      const child = await start(run);
      await delay(20 + random.below(250, round));
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      const step = await newestWhole(run);
      expect(step).toBeGreaterThanOrEqual(reached);
      reached = step;
    }
    const last = await start(run);
    const [code] = await once(last, "exit");
    expect(code).toBe(0);
    const { parameters } = await loadModel(join(run, checkpointName(steps)));
    expect(parameters).toEqual(straight.parameters);
    expect(lossesOf(readMetrics(join(run, "metrics.jsonl")))).toEqual(lossesOf(straight.records));
  });

  it("that is interrupted saves the step it is in, and goes on from there", async () => {
    const run = join(folder, "interrupted");
    const child = await start(run);
    await delay(50);
    child.kill("SIGINT");
    const [code] = await once(child, "exit");
    expect(code).toBe(0);
    const step = await newestWhole(run);
    expect(step).toBeGreaterThan(0);
    expect(lossesOf(readMetrics(join(run, "metrics.jsonl")))).toHaveLength(step);
    const [rest] = await once(await start(run), "exit");
    expect(rest).toBe(0);
    const { parameters } = await loadModel(join(run, checkpointName(steps)));
    expect(parameters).toEqual(straight.parameters);
  });

  it.skipIf(process.platform === "win32")("leaves a link to its latest checkpoint", () => {
    const run = join(folder, "killed");
    expect(readlinkSync(join(run, "latest"))).toBe(checkpointName(steps));
    expect(existsSync(join(run, "latest", "config.json"))).toBe(true);
  });
});
