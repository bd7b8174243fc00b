// Packs an experiment into a folder that runs on a machine with an NVIDIA GPU and nothing else: no npm, no network, and not
// even Node. What the experiment reads below data/ goes along.
//
//   node experiments/pack.mjs experiments/paper-50m.ts packed
//   sh packed/run.sh                    there; whatever ends it, the same command goes on
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const [experiment = "", target = ""] = process.argv.slice(2);
if (!existsSync(experiment) || target === "") {
  process.stderr.write("pack: expected the file of an experiment and a folder to make\n");
  process.exit(2);
}

/** One file of a program and all that it imports, compiled from the sources. */
async function bundle(/** @type {string} */ entry, /** @type {string} */ outfile) {
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    minify: true,
    conditions: ["@sisa/source"],
    // Loaded only by the backend that needs it; that of the GPU needs koffi.
    external: ["onnxruntime-node", "onnxruntime-web", "webgpu", "koffi"],
    // Packages that are not modules of ECMAScript ask for those of Node in the old way.
    banner: {
      js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);',
    },
    logLevel: "warning",
  });
}

rmSync(target, { recursive: true, force: true });
mkdirSync(path.join(target, "node_modules", "@koromix"), { recursive: true });
await bundle(path.join(root, "apps/cli/src/sisa.ts"), path.join(target, "sisa.mjs"));

// What the file exports is plain data, so that no compiler has to be there. It is named as the file is.
const compiled = path.join(target, "experiment.mjs");
await bundle(experiment, compiled);
const { default: plan } = await import(pathToFileURL(compiled).href);
const name = path.basename(experiment, path.extname(experiment));
writeFileSync(path.join(target, `${name}.json`), JSON.stringify(plan, undefined, 2));
rmSync(compiled);
if (existsSync("data")) {
  const named = [plan.sets ?? [], JSON.stringify(plan).match(/data\/[\w.-]+/g) ?? []].flat();
  for (const place of new Set(named)) {
    if (existsSync(place)) cpSync(place, path.join(target, place), { recursive: true });
    else process.stderr.write(`pack: there is no ${place}; put it into ${target} before it runs\n`);
  }
}

const { resolve } = createRequire(path.join(root, "packages/kernels-cuda/package.json"));
const packages = path.dirname(path.dirname(realpathSync(resolve("koffi"))));
for (const parts of [["koffi"], ["@koromix", "koffi-linux-x64"]]) {
  const from = realpathSync(path.join(packages, ...parts));
  cpSync(from, path.join(target, "node_modules", ...parts), { recursive: true });
}

cpSync(process.execPath, path.join(target, "node"));
execFileSync("xz", ["-T0", "-6", path.join(target, "node")], { stdio: "inherit" });
writeFileSync(
  path.join(target, "run.sh"),
  `#!/bin/sh
# Goes on where it was. Arguments as of \`sisa experiment\`: --only bfloat16/sisa
set -e
cd "$(dirname "$0")"
[ -x node ] || { xz --decompress --keep node.xz 2>/dev/null || python3 -c 'import lzma, shutil; shutil.copyfileobj(lzma.open("node.xz"), open("node", "wb"))'; chmod +x node; }
exec ./node sisa.mjs experiment ${name}.json "$@"
`,
);
