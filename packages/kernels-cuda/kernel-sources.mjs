// Which kernel files there are, how they are compiled, and the hash that ties an image to its source.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

const kernels = path.join(import.meta.dirname, "kernels");

const common = ["-O3", "-std=c++17"];
const everywhere = {
  sm_80: ["-cubin", "-arch=sm_80"],
  sm_90a: ["-cubin", "-arch=sm_90a"],
  ptx: ["-ptx", "-arch=compute_80"],
};
const hopper = { sm_90a: ["-cubin", "-gencode=arch=compute_90a,code=sm_90a"] };

/** How a kernel file is compiled: for every target, or where its name ends in -hopper for that generation alone. */
export function flagsFor(/** @type {string} */ name) {
  return { common, targets: name.endsWith("-hopper") ? hopper : everywhere };
}

/** Names of the .cu files, without the ending. */
export function sources() {
  return readdirSync(kernels)
    .filter((file) => file.endsWith(".cu"))
    .map((file) => file.slice(0, -3))
    .sort();
}

/** Hash of a kernel file, of the headers that it includes, and of the compiler's options. */
export function sourceHash(/** @type {string} */ name) {
  const hash = createHash("sha256").update(JSON.stringify(flagsFor(name)));
  for (const file of withHeaders(`${name}.cu`)) hash.update(file).update(readFileSync(path.join(kernels, file)));
  return hash.digest("hex");
}

/** @returns {readonly string[]} a file after all headers that it needs */
function withHeaders(/** @type {string} */ file) {
  const text = readFileSync(path.join(kernels, file), "utf8");
  const headers = [...text.matchAll(/^#include "(.+)"/gm)].flatMap(([, header]) => (header ? withHeaders(header) : []));
  return [...new Set([...headers, file])];
}
