// What is left of an evaluation whose process ends at any moment: all batches before, and the same result.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { reference } from "@sisa/core";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, it } from "vitest";
import { echoScorer } from "../../test/echo-model.ts";
import { evaluate, type ScoredEntry } from "../evaluation/evaluate.ts";
import { parity } from "../evaluation/synthetic-tasks.ts";
import { evaluationLog } from "./evaluation-log.ts";

const task = parity({ length: 8, vocabularySize: 258, items: 40 });
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "sisa-evaluation-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** How many rows were scored before, and the result. */
async function goOn(path: string, modelFingerprint = "echo") {
  await using scorer = echoScorer(reference(), {}, 8);
  const log = evaluationLog(path);
  let known: number | undefined;
  const onProgress = (done: number): void => {
    known ??= done;
  };
  try {
    return { result: await evaluate(task, scorer, { log, modelFingerprint, onProgress }), known };
  } finally {
    log.close();
  }
}

it("keeps scores that are no finite numbers", async () => {
  const path = join(folder, "broken.log");
  const entries = [
    [0, Number.NEGATIVE_INFINITY, 0],
    [1, Number.NaN, 0],
    [2, -0.5, 1],
  ] as const;
  const log = evaluationLog(path);
  expect(await log.begin("model")).toEqual([]);
  await log.append(entries);
  log.close();
  const again = evaluationLog(path);
  expect(await again.begin("model")).toEqual(entries);
  again.close();
});

it("goes on after kill -9 with all batches but the one it was in", async () => {
  const program = join(folder, "child.mjs");
  await build({
    entryPoints: [fileURLToPath(new URL("../../test/evaluation-child.ts", import.meta.url))],
    outfile: program,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "es2022",
    conditions: ["@sisa/source"],
    logLevel: "silent",
  });
  const path = join(folder, "killed/parity.log");
  const child = spawn(process.execPath, [program, path], { stdio: ["ignore", "pipe", "inherit"] });
  let told = 0;
  child.stdout.on("data", (data: Buffer) => {
    told = Number(String(data).trimEnd().split("\n").at(-1));
    if (told >= 5) child.kill("SIGKILL");
  });
  await once(child, "exit");
  expect(told).toBeGreaterThanOrEqual(5);
  expect(told).toBeLessThan(80);

  const { result, known } = await goOn(path);
  expect(known).toBeGreaterThanOrEqual(told);
  await using scorer = echoScorer(reference(), {}, 8);
  expect(result).toEqual(await evaluate(task, scorer));
});

it("drops a line that was left half-written, and keeps what stands before it", async () => {
  const path = join(folder, "torn.log");
  const { result } = await goOn(path);
  const content = readFileSync(path, "utf8");
  rmSync(path);
  const lines = content.split("\n");
  appendFileSync(path, `${lines.slice(0, 11).join("\n")}\n${lines[11]?.slice(0, 4)}`);
  const again = await goOn(path);
  const before = lines.slice(1, 11).flatMap((line) => JSON.parse(line) as ScoredEntry[]);
  expect(again).toEqual({ result, known: before.length });
  expect(readFileSync(path, "utf8").split("\n").slice(1).sort()).toEqual(lines.slice(1).sort());
});

it("begins anew for another model", async () => {
  const path = join(folder, "other.log");
  expect((await goOn(path)).known).toBe(0);
  expect((await goOn(path)).known).toBe(80);
  expect((await goOn(path, "another")).known).toBe(0);
});
