// What `sisa export` writes, used by a project of its own that has none of our packages.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { loadModel, saveModel } from "@sisa/hub/node";
import { beforeAll, describe, expect, it } from "vitest";
import { run, temporaryFolder, tinyConfig, tinyText } from "../testing.ts";

const root = fileURLToPath(new URL("../../../../", import.meta.url));
const execute = promisify(execFile);

/** Enough to write words. */
const longer = { steps: 400, saveEvery: 400, optimizer: { learningRate: 0.02, warmupSteps: 10 } };

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  await writeFile(join(folder, "corpus.txt"), tinyText);
  await writeFile(join(folder, "tiny.config.json"), JSON.stringify({ ...tinyConfig, ...longer }));
  expect((await run(folder, ["train", "tiny.config.json"])).code).toBe(0);
});

/** docs/onnx-example as it is after `npm install`, from the packages that the workspace has. */
async function exampleProject(): Promise<string> {
  const project = await temporaryFolder();
  await cp(join(root, "docs/onnx-example"), project, { recursive: true });
  const { dependencies, devDependencies } = JSON.parse(await readFile(join(project, "package.json"), "utf8"));
  const owners = [
    join(root, "package.json"),
    join(root, "apps/cli/package.json"),
    join(root, "packages/hub/package.json"),
  ];
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
    const found = owners
      .flatMap((owner) => createRequire(owner).resolve.paths(name) ?? [])
      .map((place) => join(place, name));
    const installed = (await Promise.all(found.map(versionAt))).find((one) => one?.version === version);
    if (installed === undefined) throw new Error(`the workspace has no ${name} ${version}`);
    await mkdir(dirname(join(project, "node_modules", name)), { recursive: true });
    await symlink(installed.place, join(project, "node_modules", name));
  }
  return project;
}

/** True where onnxruntime-node was installed with its library for CUDA. */
function hasCudaProvider(): boolean {
  const entry = createRequire(join(root, "apps/cli/package.json")).resolve("onnxruntime-node");
  const libraries = join(dirname(entry), `../bin/napi-v6/${process.platform}/${process.arch}`);
  return existsSync(join(libraries, "libonnxruntime_providers_cuda.so"));
}

/** A model folder that belongs to no run. */
async function copyOfModel(place: string): Promise<string> {
  const { model, parameters, tokenizer } = await loadModel(join(place, "checkpoints/latest"));
  const copy = await temporaryFolder();
  await saveModel(copy, { config: model.config, parameters, tokenizer });
  return copy;
}

async function versionAt(place: string): Promise<{ place: string; version: unknown } | undefined> {
  const text = await readFile(join(place, "package.json"), "utf8").catch(() => undefined);
  return text === undefined ? undefined : { place, version: JSON.parse(text).version };
}

describe("the example of docs/onnx.md", () => {
  it("is checked by the compiler and generates what sisa generate does", async () => {
    expect(await run(folder, ["export", "runs/latest", "--to", "export"])).toMatchObject({ code: 0 });
    const words = ["Once upon", "--temperature", "0", "--max-tokens", "40", "--json"];
    const { json } = await run(folder, ["generate", "runs/latest", ...words]);
    const project = await exampleProject();
    await execute(process.execPath, [join(project, "node_modules/typescript/bin/tsc")], { cwd: project });
    const example = [join(project, "generate.js"), join(folder, "export"), "Once upon", "40"];
    const { stdout } = await execute(process.execPath, example, { cwd: project });
    expect(String(json?.text)).toHaveLength(40);
    expect(new Set(String(json?.text)).size).toBeGreaterThan(4);
    expect(stdout).toBe(`${json?.text}\n`);

    // Where the CUDA provider was installed it is what runs; where it was not, the error says what to do.
    const onCuda = execute(process.execPath, example, { cwd: project, env: { ...process.env, PROVIDERS: "cuda,cpu" } });
    if (hasCudaProvider()) {
      expect((await onCuda).stdout).toBe(stdout);
    } else {
      const { stderr } = await onCuda.catch((error: { stderr: string }) => error);
      expect(stderr).toContain("ONNXRUNTIME_NODE_INSTALL=cuda12 npm install gets it");
      expect(stderr).toContain("AppendExecutionProvider_Cuda");
    }
  });
});

describe("sisa export", () => {
  it("writes the weights in every type that is asked for", async () => {
    const { code, json } = await run(folder, [
      "export",
      "runs/latest",
      "--to",
      "all",
      "--dtype",
      "float16,int8",
      "--json",
    ]);
    expect(code).toBe(0);
    expect(Object.keys(json?.files as object)).toEqual(
      expect.arrayContaining(["onnx/model_fp16.onnx", "onnx/model_fixed_fp16.onnx", "onnx/model_int8.onnx"]),
    );
  });

  it("measures them on what the run held out, or on a given text", async () => {
    const report = async (name: string) => JSON.parse(await readFile(join(folder, name, "onnx/report.json"), "utf8"));
    await run(folder, ["export", "runs/latest", "--to", "own"]);
    await run(folder, ["export", "runs/latest", "--to", "given", "--held-out", "corpus.txt"]);
    const [own, given] = [await report("own"), await report("given")].map(({ variants }) => variants[0].difference);
    expect(own.heldOutLoss).toBeCloseTo(own.originalLoss, 5);
    expect(given.heldOutLoss).not.toBe(own.heldOutLoss);
    const copy = await copyOfModel(join(folder, "runs/latest"));
    const { stderr } = await run(folder, ["export", copy, "--to", "none"]);
    expect(stderr).toContain("no held-out text, so what each type changes is not measured");
  });

  it("writes form exact, and form sdpa where it is asked for", async () => {
    const stock = async (name: string) => (await readFile(join(folder, name, "onnx/model.onnx"))).includes("Attention");
    await run(folder, ["export", "runs/latest", "--to", "exact"]);
    expect(await stock("exact")).toBe(false);
    await run(folder, ["export", "runs/latest", "--to", "sdpa", "--form", "sdpa"]);
    expect(await stock("sdpa")).toBe(true);
    const { model, parameters, tokenizer } = await loadModel(join(folder, "runs/latest/checkpoints/latest"));
    const paper = await temporaryFolder();
    await saveModel(paper, { config: { ...model.config, form: "sdpa" }, parameters, tokenizer });
    const { stderr } = await run(folder, ["export", paper, "--to", "paper"]);
    expect(stderr).toContain('trained in form "sdpa" and is written in form "exact"; --form sdpa keeps the form');
    expect(await stock("paper")).toBe(false);
  });

  it("refuses a file in place of the folder", async () => {
    await writeFile(join(folder, "file"), "mine");
    const { code, error } = await run(folder, ["export", "runs/latest", "--to", "file"]);
    expect(error).toBe(
      `--to: expected a folder, or a name that is free, got ${join(folder, "file")}, which is a file or below one`,
    );
    expect(code).toBe(2);
    expect(await readFile(join(folder, "file"), "utf8")).toBe("mine");
  });

  it("refuses a type that is none, before anything is written", async () => {
    const { code, error } = await run(folder, ["export", "runs/latest", "--to", "none", "--dtype", "int2"]);
    expect(error).toBe('export: expected dtypes of float32, float16, int8, int4, got "int2"');
    expect(code).toBe(2);
  });
});
