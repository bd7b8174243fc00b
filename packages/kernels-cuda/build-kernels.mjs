// Compiles kernels/*.cu into src/images/*.json: machine code for sm_80 and sm_90a and PTX for what is newer, compressed,
// with the hash of the sources and the parameters of every kernel. Files of Hopper alone have code for sm_90a. Needs nvcc 13; nothing else in the package does.
//   npm run kernels                       all files
//   npm run kernels -- attention          one of them
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { brotliCompressSync, constants } from "node:zlib";
import { flagsFor, sourceHash, sources } from "./kernel-sources.mjs";

const run = promisify(execFile);
const folder = import.meta.dirname;
const names = process.argv.slice(2);

/** Parameters of each kernel as PTX declares them: a letter for its type, or the size in bytes of a structure. */
function kernelsOf(ptx) {
  const kernels = {};
  for (const [, name, list] of ptx.matchAll(/\.entry (\w+)\(([^)]*)\)/g)) {
    kernels[name] = list
      .split(",")
      .filter((parameter) => parameter.trim() !== "")
      .map((parameter) => {
        const [, align, size] = /\.align (\d+) \.b8 \w+\[(\d+)\]/.exec(parameter) ?? [];
        if (size !== undefined) return { type: "bytes", size: Number(size), align: Number(align) };
        const [, type] = /\.param \.(\w+)/.exec(parameter) ?? [];
        return type;
      });
  }
  return kernels;
}

const compressed = (bytes) =>
  brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_LGWIN]: 24 } }).toString("base64");

const work = mkdtempSync(path.join(tmpdir(), "kernels-"));
try {
  mkdirSync(path.join(folder, "src/images"), { recursive: true });
  for (const name of names.length > 0 ? names : sources()) {
    const source = path.join(folder, "kernels", `${name}.cu`);
    const flags = flagsFor(name);
    const compile = async ([target, options]) => {
      const output = path.join(work, `${name}.${target}`);
      await run("nvcc", [...flags.common, ...options, source, "-o", output]);
      return [target, readFileSync(output)];
    };
    const code = Object.fromEntries(await Promise.all(Object.entries(flags.targets).map(compile)));
    const [, ptx] = code.ptx ? ["ptx", code.ptx] : await compile(["ptx", ["-ptx", "-arch=compute_90a"]]);
    const kernels = kernelsOf(ptx.toString("latin1"));
    const images = Object.fromEntries(Object.entries(code).map(([target, bytes]) => [target, compressed(bytes)]));
    const image = { source: sourceHash(name), kernels, images };
    writeFileSync(path.join(folder, "src/images", `${name}.json`), `${JSON.stringify(image)}\n`);
    const total = Object.values(images).reduce((sum, text) => sum + text.length, 0);
    process.stdout.write(`${name}: ${Object.keys(kernels).length} kernels, ${(total / 1024).toFixed(0)} KiB\n`);
  }
  const known = new Set(sources().map((name) => `${name}.json`));
  for (const file of readdirSync(path.join(folder, "src/images"))) {
    if (!known.has(file)) rmSync(path.join(folder, "src/images", file));
  }
} finally {
  rmSync(work, { recursive: true });
}
