// The program as a process of its own: streams, signals and exit codes as a shell sees them.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { initialize, languageModel } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { saveModel } from "@sisa/hub/node";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder, tinyConfig, tinyText } from "./testing.ts";

const packageFolder = dirname(dirname(fileURLToPath(import.meta.url)));
/** Beside the package, so that what it imports from elsewhere is found. */
const built = join(packageFolder, `node_modules/.cache/program-${process.pid}`);
const program = join(built, "sisa.mjs");
let folder: string;

beforeAll(async () => {
  await mkdir(built, { recursive: true });
  await build({
    entryPoints: [join(packageFolder, "src/sisa.ts")],
    outfile: program,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    conditions: ["@sisa/source"],
    external: ["commander", "jiti", "onnxruntime-node", "onnxruntime-web", "koffi", "webgpu"],
    // Packages that are not modules of ECMAScript ask for those of Node in the old way.
    banner: { js: 'import { createRequire as from } from "node:module"; const require = from(import.meta.url);' },
    logLevel: "silent",
  });
  folder = await temporaryFolder();
  await writeFile(join(folder, "corpus.txt"), tinyText);
  await writeFile(join(folder, "tiny.config.json"), JSON.stringify({ ...tinyConfig, backend: "reference" }));
});
afterAll(async () => {
  await rm(built, { recursive: true, force: true });
});

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(words: readonly string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [program, ...words], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  return { child, ended: endOf(child) };
}

function endOf(child: ChildProcess): Promise<Ended> {
  const written = { stdout: "", stderr: "" };
  child.stdout?.on("data", (part) => {
    written.stdout += part;
  });
  child.stderr?.on("data", (part) => {
    written.stderr += part;
  });
  return once(child, "close").then(([code]) => ({ code, ...written }));
}

/** Resolves once the process has written something to a stream, with what was found. */
function hasSaid(child: ChildProcess, text: string | RegExp, stream: "stdout" | "stderr" = "stderr") {
  return new Promise<readonly string[]>((resolve, reject) => {
    let seen = "";
    child[stream]?.on("data", (part) => {
      seen += part;
      const found = typeof text === "string" ? (seen.includes(text) ? [text] : null) : seen.match(text);
      if (found) resolve(found);
    });
    child.on("close", () => reject(new Error(`expected "${text}", got:\n${seen}`)));
  });
}

describe("the sisa program", () => {
  it("ends with the code of the error, one line of it, and no colours", async () => {
    const { code, stdout, stderr } = await start(["inspect", "nowhere"]).ended;
    expect(code).toBe(3);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^error: .*nowhere: there is no such model folder, run or checkpoint\n$/);
  });

  it("saves and leaves at the first Ctrl-C", async () => {
    const { child, ended } = start(["train", "tiny.config.json", "--steps", "5000", "--name", "stopped"]);
    await hasSaid(child, "step 1/5000");
    child.kill("SIGINT");
    const { code, stderr } = await ended;
    expect(code).toBe(130);
    expect(stderr).toContain("to go on: sisa train tiny.config.json --steps 5000 --name stopped --resume auto");
    const checkpoints = await readdir(join(folder, "runs/stopped/checkpoints"));
    expect(checkpoints.some((name) => name.startsWith("step-"))).toBe(true);
  });

  it("leaves at once at the second", async () => {
    const { child, ended } = start(["train", "tiny.config.json", "--steps", "5000", "--name", "left"]);
    await hasSaid(child, "step 1/5000");
    child.kill("SIGINT");
    await delay(1);
    child.kill("SIGINT");
    expect((await ended).code).toBe(130);
  });

  it("ends with one line where the disk is full, and keeps the checkpoints that are there", async () => {
    // A limit on the size of files stands for the full disk: the parameters still fit, the optimizer's state does not.
    const words = ["train", "tiny.config.json", "--steps", "4", "--save-every", "2", "--name", "full"];
    expect((await start(words).ended).code).toBe(0);
    const checkpoints = join(folder, "runs/full/checkpoints");
    const last = join(checkpoints, "step-00000004");
    const blocks = Math.floor((await stat(join(last, "training.safetensors"))).size / 512) - 1;
    await rm(last, { recursive: true });
    const before = (await readdir(checkpoints)).sort();
    const again = [...words, "--resume"].map((word) => `'${word}'`).join(" ");
    const command = `trap '' XFSZ; ulimit -f ${blocks}; exec '${process.execPath}' '${program}' ${again}`;
    const child = spawn("sh", ["-c", command], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    const { code, stderr } = await endOf(child);
    expect(code).toBe(1);
    expect(stderr.trimEnd().split("\n").at(-1)).toMatch(
      /^error: .*training.safetensors: the disk is full; free some space/,
    );
    expect((await readdir(checkpoints)).sort()).toEqual(before);
    expect((await start(["generate", "runs/full", "Once", "--max-tokens", "3"]).ended).code).toBe(0);
  });

  it.each(["SIGTERM", "SIGINT"] as const)("serves until %s, and finishes what was begun", async (signal) => {
    const config = {
      mixers: ["sisa"],
      vocabularySize: 257,
      width: 16,
      heads: 2,
      feedForwardWidth: 16,
      stateWidth: 4,
      form: "exact" as const,
      maximumLength: 4096,
      ropeBase: 1e4,
      normEpsilon: 1e-6,
    };
    const parameters = initialize(languageModel(config), 1);
    await saveModel(join(folder, "served"), { config, parameters, tokenizer: byteTokenizer() });
    const { child, ended } = start(["serve", "served", "--port", "0", "--shutdown-timeout", "300"]);
    const [, url] = await hasSaid(child, /serving .* at (\S+)\n/, "stdout");
    const post = (body: object) =>
      fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ prompt: "Once", ignore_eos: true, ...body }),
      });

    const stream = await post({ max_tokens: 1000, stream: true });
    const reader = stream.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader?.read())?.value ?? "";
    child.kill(signal);
    await expect.poll(async () => (await fetch(`${url}/ready`)).status).toBe(503);
    const refused = await post({ max_tokens: 1 });
    expect(refused.status).toBe(503);
    expect(await refused.json()).toMatchObject({ error: { code: "shutting_down" } });
    expect(child.exitCode).toBe(null);

    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) text += part.value;
    expect(text.includes(`"finish_reason":"length"`)).toBe(true);
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    const { code, stderr } = await ended;
    expect(code).toBe(0);
    expect(child.signalCode).toBe(null);
    expect(stderr).toContain(`${signal}: taking no more requests`);
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  it("is quiet where nobody reads on, as in `sisa --help | head`", async () => {
    const { child, ended } = start(["train", "--help"]);
    child.stdout?.destroy();
    const { stderr } = await ended;
    expect(stderr).not.toMatch(/EPIPE|^ +at /m);
  });

  it("goes on with an experiment that was killed, and its run with it", async () => {
    const { preset: _, size: __, ...model } = tinyConfig.model;
    const text = { ...tinyConfig, model, steps: 30, saveEvery: 1, evaluateEvery: 10, backend: "reference" };
    const experiment = { families: ["sisa"], sizes: ["1m"], workloads: { text } };
    for (const name of ["killed", "straight"]) {
      await writeFile(join(folder, `${name}.json`), JSON.stringify({ ...experiment, name }));
    }
    const valuesOf = async (name: string) =>
      JSON.parse(await readFile(join(folder, `runs/${name}/text/sisa-1m-seed0/result.json`), "utf8")).values;

    const { child, ended } = start(["experiment", "killed.json"]);
    await hasSaid(child, "step 10: held-out");
    child.kill("SIGKILL");
    // The run shares the output, which closes only when it has ended as well.
    await ended;
    await expect(valuesOf("killed")).rejects.toThrow("ENOENT");

    const again = await start(["experiment", "killed.json"]).ended;
    expect(again.code).toBe(0);
    expect((await start(["experiment", "straight.json"]).ended).code).toBe(0);
    const [killed, straight] = await Promise.all([valuesOf("killed"), valuesOf("straight")]);
    expect(killed.heldOutLoss).toBe(straight.heldOutLoss);
    expect(killed.peakMemoryBytes).toBeGreaterThan(30e6);
  });
});
