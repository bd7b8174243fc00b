// Which kernel files there are, how they are compiled, and the hash that ties an image to its source.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

const kernels = path.join(import.meta.dirname, "kernels");

export const flags = {
  common: ["-O3", "-std=c++17"],
  targets: {
    sm_80: ["-cubin", "-arch=sm_80"],
    sm_90a: ["-cubin", "-arch=sm_90a"],
    ptx: ["-ptx", "-arch=compute_80"],
  },
};

/** Names of the .cu files, without the ending. */
export function sources() {
  return readdirSync(kernels)
    .filter((file) => file.endsWith(".cu"))
    .map((file) => file.slice(0, -3))
    .sort();
}

/** Hash of a kernel file, the headers that kernel files share, and the compiler's options. */
export function sourceHash(/** @type {string} */ name) {
  const hash = createHash("sha256").update(JSON.stringify(flags));
  const headers = readdirSync(kernels).filter((file) => file.endsWith(".cuh"));
  for (const file of [...headers.sort(), `${name}.cu`])
    hash.update(file).update(readFileSync(path.join(kernels, file)));
  return hash.digest("hex");
}
