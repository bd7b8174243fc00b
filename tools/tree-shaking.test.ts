// What a program pays for that uses a few operations of core, in bytes. Measured on core as it is published: one file, where only
// pure annotations tell a bundler what may be left out.
import path from "node:path";
import { type BuildOptions, build } from "esbuild";
import { beforeAll, expect, test } from "vitest";
import { root } from "./run.mjs";

let published: string;

beforeAll(async () => {
  published = await bundle({ entryPoints: [path.join(root, "packages/core/src/index.ts")] });
});

async function bundle(options: BuildOptions): Promise<string> {
  const { outputFiles } = await build({ ...options, bundle: true, write: false, format: "esm", target: "es2022" });
  return outputFiles?.map(({ text }) => text).join("") ?? "";
}

/** The minified program that uses the given exports of core. */
function program(exports: string): Promise<string> {
  return bundle({
    stdin: { contents: `export ${exports} from "@sisa/core";` },
    minify: true,
    platform: "browser",
    plugins: [
      {
        name: "published-core",
        setup({ onResolve, onLoad }) {
          onResolve({ filter: /^@sisa\/core$/ }, () => ({ path: "core", namespace: "published" }));
          onLoad({ filter: /.*/, namespace: "published" }, () => ({ contents: published }));
        },
      },
    ],
  });
}

/** Which of these operations are in a program, by the names that they carry at run time. */
function operationsIn(text: string, names: readonly string[]): string[] {
  return names.filter((name) => text.includes(`"${name}"`));
}

// `mean` is spelt with `sum`.
const used = ["matmul", "silu", "sum"];
const unused = [
  "adamw",
  "attention",
  "gather",
  "linearCrossEntropy",
  "linearScan",
  "scatterAdd",
  "sisaAttention",
  "softmax",
];

test("a program of three operations and their gradient holds these and what they are made of", async () => {
  const text = await program("{ trace, f32, matmul, silu, mean, valueAndGrad }");
  expect(operationsIn(text, used)).toEqual(used);
  expect(operationsIn(text, unused)).toEqual([]);
  // 25.9 kB with explicit output types; the bound leaves room for fixes, not for another operation such as attention.
  expect(text.length).toBeLessThan(26_000);
});

test("the same check finds operations that are in a program", async () => {
  expect(operationsIn(await program("*"), [...used, ...unused])).toEqual([...used, ...unused]);
});

test("a program that uses only shapes holds no graph", async () => {
  const text = await program("{ f32, dim }");
  expect(operationsIn(text, [...used, ...unused])).toEqual([]);
  // 4.2 kB when this was written.
  expect(text.length).toBeLessThan(6_000);
});

test("a page that computes on WebGPU holds the backend and what it needs of core", async () => {
  const { outputFiles, metafile } = await build({
    stdin: { contents: 'export { webgpu } from "@sisa/kernels-webgpu";', resolveDir: path.join(root, "apps/cli") },
    ...{ bundle: true, write: false, format: "esm", target: "es2022", minify: true, platform: "browser" },
    conditions: ["@sisa/source"],
    ...{ splitting: true, metafile: true, outdir: path.join(root, "page") },
  });
  const texts = new Map(outputFiles.map(({ path: file, text }) => [file, text]));
  const imports = new Map(
    Object.entries(metafile.outputs).map(([file, output]) => [path.resolve(file), output.imports] as const),
  );
  // What every page loads: the entry and what it imports at once, not what it asks for where an adapter has it.
  const loaded = new Set([path.join(root, "page/stdin.js")]);
  for (const file of loaded) {
    for (const { kind, path: imported } of imports.get(file) ?? [])
      if (kind === "import-statement") loaded.add(path.resolve(imported));
  }
  const [page = "", apart = ""] = [true, false].map((isLoaded) =>
    [...texts].map(([file, text]) => (loaded.has(file) === isLoaded ? text : "")).join(""),
  );
  // 126.7 kB with the kernels for subgroups, decoding and the choice of tokens, and constants that programs share, 28 of them
  // core's. The bound leaves room for fixes, not for the layers and models of core.
  expect(page.length).toBeLessThan(128_000);
  expect(page).not.toMatch(/embed\.weight|layers\./);
  const units = "subgroupMatrixMultiplyAccumulate";
  expect([page.includes(units), apart.includes(units)]).toEqual([false, true]);
});
