// Fresh projects outside the workspace that install @sisa packages from the local registry.
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { root } from "../../../tools/run.mjs";
import { run } from "./command.ts";
import type { LocalRegistry } from "./registry.ts";

const pnpm = path.join(root, "node_modules/pnpm/bin/pnpm.cjs");

/** Settings of pnpm that projects of people who read the installation lines have, too: no install script is run. */
const settings = `packages: ["."]
autoInstallPeers: false
ignoredBuiltDependencies: [esbuild, koffi, onnxruntime-node, protobufjs, webgpu]
`;

/**
 * A copy of a folder of this package, such as `consumers/page`, with what its package.json names installed by pnpm.
 * @returns the folder
 */
export async function copiedProject(source: string, to: string, registry: LocalRegistry): Promise<string> {
  await cp(path.join(import.meta.dirname, "..", source), to, { recursive: true });
  await writeFile(path.join(to, ".npmrc"), registry.npmrc);
  await writeFile(path.join(to, "pnpm-workspace.yaml"), settings);
  await run(process.execPath, [pnpm, "install", "--no-frozen-lockfile", "--prefer-offline"], { cwd: to });
  return to;
}

/**
 * An empty project in which npm has installed some of the packages.
 * @returns names of all packages that this brought, ours and others, sorted
 */
export async function emptyProject(to: string, registry: LocalRegistry, names: readonly string[]): Promise<string[]> {
  await mkdir(to);
  await writeFile(path.join(to, "package.json"), JSON.stringify({ name: "empty-project", type: "module" }));
  await writeFile(path.join(to, ".npmrc"), registry.npmrc);
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", ...names], {
    cwd: to,
  });
  const { stdout } = await run("npm", ["ls", "--all", "--json"], { cwd: to });
  const found = new Set<string>();
  const visit = ({ dependencies = {} }: Listed): void => {
    for (const [name, listed] of Object.entries(dependencies)) {
      // An optional peer that is not there is listed, empty.
      if (listed.version !== undefined) found.add(name);
      visit(listed);
    }
  };
  visit(JSON.parse(stdout));
  return [...found].sort();
}

interface Listed {
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, Listed>>;
}

/** The package of each backend. */
const backendPackages = {
  onnxruntime: "@sisa/onnx",
  webgpu: "@sisa/kernels-webgpu",
  cuda: "@sisa/kernels-cuda",
  reference: "@sisa/core",
} as const;

/** The line of a program that chooses its backend, in modules and in CommonJS. */
const backendLine = /^(\s*)(import|const) \{ \w+(:| as) openBackend \} (from |= await import\()"[^"]+"/;

/**
 * Writes a program of a project again with its one line for another backend, beside it.
 * @returns the new file's name, such as `main.webgpu.mjs`
 */
export async function onBackend(folder: string, file: string, backend: keyof typeof backendPackages): Promise<string> {
  const text = await readFile(path.join(folder, file), "utf8");
  const lines = text.split("\n");
  const chosen = lines.filter((line) => backendLine.test(line));
  if (chosen.length !== 1) throw new Error(`${file}: expected one line that names the backend, got ${chosen.length}`);
  const swapped = lines.map((line) =>
    line.replace(backendLine, `$1$2 { ${backend}$3 openBackend } $4"${backendPackages[backend]}"`),
  );
  const { name, ext } = path.parse(file);
  const written = `${name}.${backend}${ext}`;
  await writeFile(path.join(folder, written), swapped.join("\n"));
  return written;
}
