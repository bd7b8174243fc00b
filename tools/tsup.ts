// Build settings shared by every package: ES modules with declaration files, from the entries that the package names.
// A package's tsup.config.ts passes its entries and nothing else, so that all packages are built alike.
import { defineConfig } from "tsup";

/** Build configuration for the entries `{ "index": "src/index.ts", ... }` of one package. */
export function library(entry: Record<string, string>) {
  return defineConfig({
    entry,
    format: "esm",
    // Node 20 and current browsers; `using` declarations are lowered.
    target: "es2022",
    platform: "neutral",
    dts: true,
    sourcemap: true,
    clean: true,
    silent: true,
    // A prefix that says "only Node has this" stays.
    removeNodeProtocol: false,
    // Dependencies, ours too, stay imports.
    skipNodeModulesBundle: true,
  });
}
