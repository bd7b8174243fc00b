// Reads a configuration file. A TypeScript file is code and is executed; it is the only file that is.
import { readFile, stat } from "node:fs/promises";
import { basename, extname } from "node:path";
import { ConfigError } from "@sisa/core";
import { createJiti } from "jiti";
import * as configEntry from "./config.ts";

const codeExtensions = [".ts", ".mts", ".js", ".mjs"];

/**
 * What a configuration file holds, not yet checked.
 * @throws ConfigError where it is missing, of another kind, or cannot be read
 */
export async function readConfigFile(path: string): Promise<unknown> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() !== true) throw new ConfigError(`${path}: there is no such configuration file`);
  const extension = extname(path);
  if (extension === ".json") return parseJson(await readFile(path, "utf8"), path);
  if (codeExtensions.includes(extension)) return await runConfig(path);
  throw new ConfigError(`${path}: expected a configuration in .json or ${codeExtensions.join(", ")}`);
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`${path}: not JSON: ${reasonOf(cause)}`, { cause });
  }
}

async function runConfig(path: string): Promise<unknown> {
  const jiti = createJiti(path, {
    fsCache: false,
    // A file outside of any project, run through npx for instance, finds the entry too.
    virtualModules: { "@sisa/cli/config": configEntry },
  });
  let loaded: unknown;
  try {
    loaded = await jiti.import(path);
  } catch (cause) {
    throw new ConfigError(`${path}: cannot be executed: ${reasonOf(cause)}`, { cause });
  }
  if (typeof loaded !== "object" || loaded === null || !("default" in loaded)) {
    throw new ConfigError(`${path}: expected "export default defineConfig({ ... })", found no default export`);
  }
  return loaded.default;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** The name that a run gets from its configuration file: "sisa" for sisa.config.ts. */
export function nameOfConfig(path: string): string {
  const name = basename(path, extname(path));
  return name.replace(/\.config$/, "") || "run";
}
