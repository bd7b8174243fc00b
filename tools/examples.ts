// Code blocks of the project's pages, and how a block becomes a program that runs on the sources.
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { root } from "./run.mjs";

/** A package that depends on all the others, so that examples find them from here. */
const command = path.join(root, "apps/cli");

/** A fenced block of a Markdown page. */
export interface CodeBlock {
  /** The word after the fence. */
  readonly language: string;
  /** What follows that word, such as "no-run: it needs a GPU". */
  readonly note: string;
  readonly code: string;
  /** Line of the fence, from 1. */
  readonly line: number;
}

/** The fenced blocks of a page in order. */
export function codeBlocks(markdown: string): CodeBlock[] {
  return [...markdown.matchAll(/^```(\w+)?[ \t]*(.*)\n([\s\S]*?)^```$/gm)].map((match) => ({
    language: match[1] ?? "",
    note: match[2] ?? "",
    code: match[3] ?? "",
    line: markdown.slice(0, match.index).split("\n").length,
  }));
}

/** An empty folder inside a package, from which a program finds what the package depends on. */
export async function exampleFolder(inside = command): Promise<AsyncDisposable & { readonly path: string }> {
  const cache = path.join(inside, "node_modules/.cache");
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(path.join(cache, "example-"));
  return { path: folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

/**
 * Writes a program from TypeScript, on sources.
 * @param file in a folder of `exampleFolder`, from which it finds packages
 */
export async function buildProgram(code: string, file: string): Promise<void> {
  await build({
    stdin: { contents: code, loader: "ts", resolveDir: path.dirname(file) },
    outfile: file,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    conditions: ["@sisa/source"],
    external: ["onnxruntime-node", "onnxruntime-web", "koffi", "webgpu", "jiti"],
    // Bundled from sources, no package has a worker program beside it.
    define: { "import.meta.url": '"file:///example.ts"' },
    // Some dependencies are CommonJS and ask for modules of Node.
    banner: {
      js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(process.execPath);',
    },
    logLevel: "silent",
  });
}

/** Runs TypeScript as a program in a folder of `exampleFolder`, on sources. Returns what it printed. */
export async function runExample(
  code: string,
  folder: string,
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const program = path.join(folder, "example.mjs");
  await buildProgram(code, program);
  const { stdout } = await promisify(execFile)(process.execPath, [program], {
    cwd: folder,
    env: { ...process.env, ...env },
  });
  return stdout;
}
