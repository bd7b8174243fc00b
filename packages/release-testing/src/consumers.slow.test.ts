// The published packages in projects of other people: installed from a registry, imported in every way that is promised.
import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { run } from "./command.ts";
import { packAll, workspace } from "./packed.ts";
import { freshProject, trainingProgram } from "./projects.ts";
import { type LocalRegistry, localRegistry } from "./registry.ts";

const version = "^0.1.0";
const runtime = { "onnxruntime-node": "1.30.0" };
const thirdParty = path.join(import.meta.dirname, "../third-party");

let folder: string;
let registry: LocalRegistry;
/** A project with everything that trains, exports and serves. */
let project: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sisa-consumers-"));
  registry = await localRegistry(folder);
  await registry.publish(await packAll(path.join(folder, "packed")));
  const names = ["core", "hub", "onnx", "train", "serve", "kernels-webgpu", "kernels-cuda"];
  const ours = Object.fromEntries(names.map((name) => [`@sisa/${name}`, version]));
  const compiler = { typescript: "5.9.3", "@types/node": "20.19.43" };
  const files = { "train.mjs": trainingProgram, "train.ts": trainingProgram };
  project = await freshProject(path.join(folder, "everything"), registry, { ...ours, ...runtime, ...compiler }, files);
}, 600_000);
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Packages below node_modules/@sisa, and all others at the top. */
async function installed(at: string): Promise<string[]> {
  const all = await readdir(path.join(at, "node_modules"));
  const ours = all.includes("@sisa") ? await readdir(path.join(at, "node_modules/@sisa")) : [];
  return [...ours.map((name) => `@sisa/${name}`), ...all.filter((name) => !name.startsWith(".") && name !== "@sisa")];
}

describe("with everything installed", () => {
  test("modules of Node train, sample and save", async () => {
    const { stdout } = await run(process.execPath, ["train.mjs"], { cwd: project });
    expect(stdout).toBe("sampled true\n");
    expect(await readdir(path.join(project, "my-model"))).toContain("model.safetensors");
  });

  test.each([
    ["bundler", "esnext"],
    ["nodenext", "nodenext"],
  ])("TypeScript resolves and checks them with moduleResolution %s", async (moduleResolution, module) => {
    const options = { moduleResolution, module, target: "es2022", lib: ["es2023", "esnext.disposable", "dom"] };
    const strict = { strict: true, skipLibCheck: false, noEmit: true, types: ["node"] };
    const name = `tsconfig.${moduleResolution}.json`;
    const config = { compilerOptions: { ...options, ...strict }, files: ["train.ts"] };
    await writeFile(path.join(project, name), JSON.stringify(config));
    await run(process.execPath, ["node_modules/typescript/bin/tsc", "-p", name], { cwd: project });
    // And it would say so.
    await writeFile(path.join(project, "wrong.ts"), trainingProgram.replace('"1m"', '"1"'));
    await writeFile(path.join(project, name), JSON.stringify({ ...config, files: ["wrong.ts"] }));
    const wrong = run(process.execPath, ["node_modules/typescript/bin/tsc", "-p", name], { cwd: project });
    await expect(wrong).rejects.toThrow(/wrong.ts.*'"1"'/s);
  });

  test("CommonJS reaches them by import()", async () => {
    const program = `
      const main = async () => {
        const { generate } = await import("@sisa/core");
        const { loadModel } = await import("@sisa/hub/node");
        const { onnxruntime } = await import("@sisa/onnx");
        const loaded = await loadModel("my-model");
        const backend = await onnxruntime();
        const ids = [];
        for await (const id of generate({ ...loaded, backend, tokens: [111, 110], maxTokens: 5, seed: 1 })) ids.push(id);
        await backend.close();
        console.log(ids.length);
      };
      main();
    `;
    await writeFile(path.join(project, "generate.cjs"), program);
    expect((await run(process.execPath, ["generate.cjs"], { cwd: project })).stdout).toBe("5\n");
  });

  test("a third party adds an operation, a layer, a model and a backend by what is public", async () => {
    await cp(thirdParty, project, { recursive: true });
    const config = {
      compilerOptions: {
        module: "nodenext",
        target: "es2022",
        strict: true,
        skipLibCheck: false,
        outDir: "built",
        types: ["node"],
        lib: ["es2023", "esnext.disposable", "dom"],
      },
      files: ["third-party.ts"],
    };
    await writeFile(path.join(project, "tsconfig.third-party.json"), JSON.stringify(config));
    await run(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.third-party.json"], {
      cwd: project,
    });
    const { stdout } = await run(process.execPath, ["built/third-party.js"], { cwd: project });
    expect(stdout).toBe("operation ok\nlayer and model ok\nbackend ok\n");
  });

  test.each([
    ["Bun", "@oven/bun-linux-x64", "bin/bun", ["run"]],
    ["Deno", "@deno/linux-x64-glibc", "deno", ["run", "--allow-all", "--node-modules-dir=manual"]],
  ])("%s runs core and onnx", async (_, packageName, file, words) => {
    const program = path.join(
      path.dirname(createRequire(import.meta.url).resolve(`${packageName}/package.json`)),
      file,
    );
    expect(existsSync(program)).toBe(true);
    const { stdout } = await run(program, [...words, "train.mjs"], { cwd: project });
    expect(stdout).toContain("sampled true");
  });

  test("another backend is one other line", async () => {
    const swap = (line: string, made: string) =>
      trainingProgram.replace('import { onnxruntime } from "@sisa/onnx";', line).replace("await onnxruntime()", made);
    await writeFile(
      path.join(project, "reference.mjs"),
      swap('import { reference } from "@sisa/core";', "reference()"),
    );
    expect((await run(process.execPath, ["reference.mjs"], { cwd: project })).stdout).toBe("sampled true\n");
    // Without a GPU, what is said is what to do.
    await writeFile(path.join(project, "cuda.mjs"), swap('import { cuda } from "@sisa/kernels-cuda";', "await cuda()"));
    const onCuda = run(process.execPath, ["cuda.mjs"], { cwd: project, env: { CUDA_VISIBLE_DEVICES: "" } });
    await expect(onCuda).rejects.toThrow(/BackendUnavailableError|cuda: no /);
    await writeFile(
      path.join(project, "webgpu.mjs"),
      swap('import { webgpu } from "@sisa/kernels-webgpu";', "await webgpu()"),
    );
    await expect(run(process.execPath, ["webgpu.mjs"], { cwd: project })).rejects.toThrow(
      /npm install webgpu|webgpu: /,
    );
  });
});

describe("installing only what is needed", () => {
  test("core brings nothing", async () => {
    const at = await freshProject(
      path.join(folder, "core"),
      registry,
      { "@sisa/core": version },
      {
        "main.mjs": 'import { preset } from "@sisa/core"; console.log(preset("sisa", "50m").feedForwardWidth);',
      },
    );
    expect(await installed(at)).toEqual(["@sisa/core"]);
    expect(Number((await run(process.execPath, ["main.mjs"], { cwd: at })).stdout)).toBeGreaterThan(1000);
    const lock = await readFile(path.join(at, "pnpm-lock.yaml"), "utf8");
    expect([...lock.matchAll(/^ {2}'?(@?[^\s'@]+)@/gm)].map(([, name]) => name)).toEqual(["@sisa/core", "@sisa/core"]);
  });

  test("core and onnx run a graph, and say what is missing without the runtime", async () => {
    const program = `
      import { f32, silu, trace } from "@sisa/core";
      import { onnxruntime } from "@sisa/onnx";
      try {
        await onnxruntime();
      } catch (error) {
        console.log(error.code, error.message);
      }
    `;
    const dependencies = { "@sisa/core": version, "@sisa/onnx": version };
    const at = await freshProject(path.join(folder, "onnx"), registry, dependencies, { "main.mjs": program });
    const { stdout } = await run(process.execPath, ["main.mjs"], { cwd: at });
    expect(stdout).toMatch(/npm install onnxruntime-node/);
    const lock = await readFile(path.join(at, "pnpm-lock.yaml"), "utf8");
    expect(lock).not.toMatch(/@sisa\/(train|hub|kernels)|webgpu@|koffi@/);
  });

  test("core, hub and serve answer a request without train", async () => {
    const program = `
      import { initialize, languageModel, preset, reference } from "@sisa/core";
      import { byteTokenizer } from "@sisa/hub";
      import { loadModel, saveModel } from "@sisa/hub/node";
      import { serve } from "@sisa/serve/node";
      const tokenizer = byteTokenizer();
      const sizes = { layers: 1, width: 8, heads: 2, stateWidth: 2, maximumLength: 64 };
      const config = preset("sisa", "1m", { vocabularySize: tokenizer.size, ...sizes });
      await saveModel("model", { config, parameters: initialize(languageModel(config), 1), tokenizer });
      const backend = reference();
      const server = await serve(await loadModel("model"), { backend, port: 0 });
      const answer = await fetch(server.url + "/v1/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "sisa", prompt: "Once", max_tokens: 3, temperature: 0 }),
      });
      console.log(answer.status, (await answer.json()).usage.completion_tokens);
      await server.close();
      await backend.close();
    `;
    const dependencies = { "@sisa/core": version, "@sisa/hub": version, "@sisa/serve": version };
    const at = await freshProject(path.join(folder, "serve"), registry, dependencies, { "main.mjs": program });
    expect((await run(process.execPath, ["main.mjs"], { cwd: at })).stdout).toBe("200 3\n");
    expect(await readFile(path.join(at, "pnpm-lock.yaml"), "utf8")).not.toContain("@sisa/train");
  });
});

test("the workspace itself takes no part", () => {
  expect(folder.startsWith(workspace)).toBe(false);
});
