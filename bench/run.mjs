// Runs a benchmark: `node bench/run.mjs NAME [ARGUMENTS]`. It is compiled from the sources of the workspace, so that what is
// measured is what is in the working tree, built or not.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const folder = path.dirname(fileURLToPath(import.meta.url));
const names = readdirSync(folder).flatMap((file) => (file.endsWith(".ts") ? [path.basename(file, ".ts")] : []));
const [name = "", ...rest] = process.argv.slice(2);

if (!names.includes(name)) {
  process.stderr.write(`bench: expected one of ${names.join(", ")}, got "${name}".\n`);
  process.exitCode = 2;
} else {
  // Beside the sources, so that packages are found as they would be from there.
  const outfile = path.join(folder, "node_modules", ".cache", "bench", `${name}.mjs`);
  await build({
    entryPoints: [path.join(folder, `${name}.ts`)],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    conditions: ["@sisa/source"],
    external: ["onnxruntime-node", "onnxruntime-web", "node-llama-cpp", "koffi", "webgpu", "@jax-js/jax"],
    // Packages that are not modules of ECMAScript ask for those of Node in the old way.
    banner: {
      js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);',
    },
    sourcemap: "inline",
    logLevel: "warning",
  });
  const { status } = spawnSync(process.execPath, ["--enable-source-maps", outfile, ...rest], { stdio: "inherit" });
  process.exitCode = status ?? 1;
}
