// A release: everything is built, published by the command that releases use, and installed in projects of other people,
// in every way that is promised.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { launchChromium, openPage, serve, testGpuEnvironment } from "@sisa/browser-testing/node";
import { build } from "esbuild";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { publicPackages } from "../../../tools/packages.ts";
import { run } from "./command.ts";
import { copiedProject, emptyProject, onBackend } from "./projects.ts";
import { type LocalRegistry, localRegistry } from "./registry.ts";

/** Time for all of it on a machine that is very busy, in milliseconds; three minutes are enough on a quiet one. */
const setUpTimeoutMs = 1_800_000;

let folder: string;
let registry: LocalRegistry;
/** Makes a GPU of the processor, for Dawn. */
let swiftshader: Readonly<Record<string, string>>;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sisa-release-"));
  registry = await localRegistry(folder);
  swiftshader = await testGpuEnvironment();
}, setUpTimeoutMs);
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Runs a program of a project with Node; gives what it printed as JSON. */
async function result(cwd: string, words: readonly string[], env = {}): Promise<Record<string, unknown>> {
  return JSON.parse((await run(process.execPath, words, { cwd, env })).stdout);
}

describe.each(publicPackages().map(({ manifest }) => manifest.name))("%s", (name) => {
  test("holds its licence, its README, its changelog and what its package.json names", async () => {
    const tarball = await registry.tarball(name);
    const { messages, pkg } = await publint({ pack: { tarball: tarball.buffer } });
    expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
    const content = createPackageFromTarballData(tarball);
    const files = content.listFiles();
    const expected = ["LICENSE", "README.md", "CHANGELOG.md"].map((file) => `/node_modules/${name}/${file}`);
    expect(files).toEqual(expect.arrayContaining(expected));
    expect(files.filter((file) => /\.test\.|\/src\//.test(file))).toEqual([]);
    const manifest = content.readFile(`/node_modules/${name}/package.json`);
    expect(manifest).not.toContain("workspace:");
    expect(JSON.stringify(JSON.parse(manifest).exports)).not.toContain("@sisa/source");
  });

  test("gives types to every kind of importer", async () => {
    const checked = await checkPackage(createPackageFromTarballData(await registry.tarball(name)));
    if (!checked.types) throw new Error(`${name} has no types`);
    const problems = checked.problems.filter((problem) => {
      // Modules only, on purpose: CommonJS reaches them by import(), and resolution from before `exports` by nothing.
      if (problem.kind === "CJSResolvesToESM") return false;
      return !("resolutionKind" in problem && problem.resolutionKind === "node10");
    });
    expect(problems).toEqual([]);
  });
});

describe("a library that trains, exports and generates", () => {
  let library: string;
  let trained: Record<string, unknown>;
  const compilerOptions = {
    target: "es2022",
    lib: ["es2023", "esnext.disposable", "dom"],
    types: ["node"],
    strict: true,
    skipLibCheck: false,
  };

  /** Compiles its programs, for one module resolution. */
  async function compile(compiler: string, module: string, moduleResolution: string, outDir: string): Promise<void> {
    const config = `tsconfig.${compiler}.${moduleResolution}.json`;
    const options = { ...compilerOptions, module, moduleResolution, outDir };
    const content = { compilerOptions: options, files: ["train.ts", "types.ts"] };
    await writeFile(path.join(library, config), JSON.stringify(content));
    await run(process.execPath, [`node_modules/${compiler}/bin/tsc`, "-p", config], { cwd: library });
  }

  beforeAll(async () => {
    library = await copiedProject("consumers/library", path.join(folder, "library"), registry);
    await compile("typescript", "nodenext", "nodenext", ".");
    trained = await result(library, ["train.js"]);
  }, setUpTimeoutMs);

  test("is compiled for Node, and runs", () => {
    expect(trained).toMatchObject({ backend: "onnxruntime", steps: 10, sample: expect.stringMatching(/./) });
    // It learnt: fewer nats than all tokens being alike.
    expect(trained.loss).toBeLessThan(Math.log(257));
    expect(trained.files).toEqual(expect.arrayContaining(["onnx/model.onnx", "config.json", "tokenizer.json"]));
  });

  test.each([
    ["typescript", "esnext", "bundler"],
    ["typescript-7", "nodenext", "nodenext"],
    ["typescript-7", "esnext", "bundler"],
  ])("%s checks it with module %s and resolution %s", async (compiler, module, resolution) => {
    await compile(compiler, module, resolution, `built-${compiler}-${resolution}`);
  });

  test("CommonJS reaches the packages by import()", async () => {
    const expected = { backend: "onnxruntime", sample: trained.sample };
    expect(await result(library, ["generate.cjs"])).toEqual(expected);
    const swapped = await result(library, [await onBackend(library, "generate.cjs", "reference")]);
    expect(swapped).toEqual({ ...expected, backend: "reference" });
  });

  test.each([
    ["Bun", "@oven/bun-linux-x64", "bin/bun", ["run"]],
    ["Deno", "@deno/linux-x64-glibc", "deno", ["run", "--allow-all", "--node-modules-dir=manual"]],
  ])("%s runs its TypeScript as it is", async (_, packageName, file, words) => {
    const manifest = createRequire(import.meta.url).resolve(`${packageName}/package.json`);
    const { stdout } = await run(path.join(path.dirname(manifest), file), [...words, "train.ts"], { cwd: library });
    expect(JSON.parse(stdout)).toEqual(trained);
  });

  test.each(["reference", "webgpu"] as const)(
    "trains alike with %s, which is one other line",
    async (backend) => {
      const other = await result(library, [await onBackend(library, "train.js", backend)], swiftshader);
      expect(other).toEqual({ ...trained, backend, loss: expect.closeTo(trained.loss as number, 4) });
    },
    setUpTimeoutMs,
  );

  test("what only Node has is not found by a bundler for browsers, which says so", async () => {
    const bundle = (platform: "browser" | "node") =>
      build({
        stdin: { contents: 'export { loadModel } from "@sisa/hub/node";', resolveDir: library },
        bundle: true,
        write: false,
        format: "esm",
        logLevel: "silent",
        platform,
      });
    expect((await bundle("node")).errors).toEqual([]);
    await expect(bundle("browser")).rejects.toThrow(/Could not resolve "@sisa\/hub\/node"/);
  });

  test("says what is missing where there is no NVIDIA GPU", async () => {
    const onCuda = await onBackend(library, "train.js", "cuda");
    const attempt = run(process.execPath, [onCuda], { cwd: library, env: { CUDA_VISIBLE_DEVICES: "" } });
    await expect(attempt).rejects.toThrow(/BackendUnavailableError: cuda: .*(install|check with nvidia-smi)/);
  });
});

test(
  "core and onnx alone run a graph, and export it for programs without our packages",
  async () => {
    const at = await copiedProject("consumers/graph", path.join(folder, "graph"), registry);
    const found = await result(at, ["main.mjs"]);
    // silu(8 * 0.5 * 0.1), and its derivative by one of 4 weights: 0.5 * silu'(0.4) / 4.
    expect(found).toEqual({
      backend: "onnxruntime",
      value: expect.closeTo(0.239475, 6),
      gradient: expect.closeTo((0.5 / 4) * 0.694792, 6),
      exported: expect.closeTo(0.239475, 6),
    });
    const swapped = await result(at, [await onBackend(at, "main.mjs", "reference")]);
    expect(swapped.value).toBeCloseTo(found.value as number, 6);
  },
  setUpTimeoutMs,
);

test(
  "core, hub and serve answer a request, without train",
  async () => {
    const at = await copiedProject("consumers/service", path.join(folder, "service"), registry);
    const found = await result(at, ["main.mjs"]);
    expect(found).toMatchObject({ backend: "onnxruntime", status: 200, tokens: 3 });
    expect(await result(at, [await onBackend(at, "main.mjs", "reference")])).toEqual({
      ...found,
      backend: "reference",
    });
    expect(await readFile(path.join(at, "pnpm-lock.yaml"), "utf8")).not.toContain("@sisa/train");
  },
  setUpTimeoutMs,
);

test(
  "a page that Vite builds trains on WebGPU, and on ONNX Runtime by one other line",
  async () => {
    const at = await copiedProject("consumers/page", path.join(folder, "page"), registry);
    await using chromium = await launchChromium();
    async function trainedBy(script: string): Promise<{ backend: string; losses: readonly number[] }> {
      const html = await readFile(path.join(at, "index.html"), "utf8");
      await writeFile(path.join(at, "index.html"), html.replace(/src="main[\w.]*ts"/, `src="${script}"`));
      await run(process.execPath, ["node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"], { cwd: at });
      await using server = await serve(path.join(at, "dist"));
      const { page, errors } = await openPage(chromium, server.url);
      const trained = (await page.evaluate("result")) as Awaited<ReturnType<typeof trainedBy>>;
      expect(errors).toEqual([]);
      await page.close();
      return trained;
    }
    const { backend, losses } = await trainedBy("main.ts");
    expect(backend).toBe("webgpu");
    expect(losses).toHaveLength(10);
    expect(losses.at(-1)).toBeLessThan((losses[0] ?? 0) - 0.05);
    const onCpu = await trainedBy(await onBackend(at, "main.ts", "onnxruntime"));
    expect(onCpu.backend).toBe("onnxruntime");
    onCpu.losses.forEach((loss, step) => {
      expect(loss).toBeCloseTo(losses[step] ?? Number.NaN, 4);
    });
  },
  setUpTimeoutMs,
);

test(
  "a third party adds an operation, a layer, a model and a backend by what is public",
  async () => {
    const at = await copiedProject("third-party", path.join(folder, "third-party"), registry);
    const compilerOptions = {
      module: "nodenext",
      target: "es2022",
      lib: ["es2023", "esnext.disposable", "dom"],
      types: ["node"],
      strict: true,
      skipLibCheck: false,
      rewriteRelativeImportExtensions: true,
      outDir: "built",
    };
    await writeFile(path.join(at, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
    await run(process.execPath, ["node_modules/typescript/bin/tsc"], { cwd: at });
    const found = (await result(at, ["built/main.js"], swiftshader)) as unknown as {
      readonly gradientError: number;
      readonly ownCubes: number;
      readonly runs: readonly { backend: string; losses: readonly number[]; deviceBytes: readonly number[] }[];
    };
    expect(found.gradientError).toBeLessThan(1e-8);
    expect(found.runs.map(({ backend }) => backend)).toEqual(["reference", "onnxruntime", "webgpu", "acme/plain"]);
    const [{ losses } = { losses: [] }] = found.runs;
    expect(losses).toHaveLength(10);
    expect(losses.at(-1)).toBeLessThan(0.5 * (losses[0] ?? 0));
    for (const each of found.runs) {
      each.losses.forEach((loss, step) => {
        expect(loss, `${each.backend}, step ${step}`).toBeCloseTo(losses[step] ?? Number.NaN, 4);
      });
      // Nothing has to be disposed of in a loop.
      expect(new Set(each.deviceBytes.slice(1)).size, each.backend).toBe(1);
    }
    // Two layers and a loss, ten times.
    expect(found.ownCubes).toBe(30);
  },
  setUpTimeoutMs,
);

describe("installing one package brings what it needs and nothing else", () => {
  /** What a program of a project prints that makes a backend and fails: the error's code and message. */
  async function errorOf(at: string, name: string, factory: string): Promise<string> {
    const program = `import { ${factory} } from "${name}";
      await ${factory}().catch(({ code, message }) => console.log(code, message));`;
    const words = ["--input-type=module", "--eval", program];
    return (await run(process.execPath, words, { cwd: at, env: { CUDA_VISIBLE_DEVICES: "" } })).stdout;
  }

  test("core: nothing, and it runs", async () => {
    const at = path.join(folder, "core-alone");
    expect(await emptyProject(at, registry, ["@sisa/core"])).toEqual(["@sisa/core"]);
    const program = `import { evaluate, f32, silu, trace } from "@sisa/core";
      const graph = trace({ x: f32(1) }, ({ x }) => silu(x));
      console.log(evaluate(graph, { x: { shape: [1], data: Float64Array.of(1) } }).value.data[0]);`;
    const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", program], { cwd: at });
    expect(Number(stdout)).toBeCloseTo(1 / (1 + Math.exp(-1)), 12);
  });

  test.each([
    [
      "onnx",
      "onnxruntime",
      /^(@bufbuild\/protobuf|onnx-buf)$/,
      /ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node/,
    ],
    ["kernels-webgpu", "webgpu", /^$/, /npm install webgpu/],
    ["kernels-cuda", "cuda", /^(@koromix\/)?koffi/, /install the driver of your GPU|check with nvidia-smi/],
  ])("%s: core, and without a runtime its error says what to install", async (name, factory, others, advice) => {
    const at = path.join(folder, `${name}-alone`);
    const installed = await emptyProject(at, registry, ["@sisa/core", `@sisa/${name}`]);
    expect(installed).toEqual(expect.arrayContaining(["@sisa/core", `@sisa/${name}`]));
    const rest = installed.filter((each) => each !== "@sisa/core" && each !== `@sisa/${name}`);
    expect(rest.filter((each) => !others.test(each))).toEqual([]);
    expect(await errorOf(at, `@sisa/${name}`, factory)).toMatch(
      new RegExp(`^BACKEND_UNAVAILABLE [^]*${advice.source}`),
    );
  });
});
