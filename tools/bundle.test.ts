// What the entries of the packages pull in, seen by a bundler: nothing of Node where a browser must run them, nothing undeclared.
import { existsSync } from "node:fs";
import { builtinModules } from "node:module";
import path from "node:path";
import { build, type Metafile, type Plugin } from "esbuild";
import { describe, expect, test } from "vitest";
import { entries, publicPackages, type WorkspacePackage, workspacePackages } from "./packages.ts";
import { root } from "./run.mjs";

/** Loaded with `import()` when a backend starts: what whoever wants that backend installs, and what only Node can load. */
const optionalPeers = ["onnxruntime-node", "onnxruntime-web", "koffi"];

/** Keeps modules of Node as imports, in both spellings, and lists them as `node:x`. */
const nodeModules: Plugin = {
  name: "node-modules",
  setup({ onResolve }) {
    const names = new Set(builtinModules);
    onResolve({ filter: /^[^./]/ }, ({ path: imported }) =>
      imported.startsWith("node:") || names.has(imported)
        ? { path: imported.startsWith("node:") ? imported : `node:${imported}`, external: true }
        : undefined,
    );
  },
};

/** Bundles one source file, dependencies included, and says what it is made of. */
async function bundle(
  source: string,
  options: { platform: "browser" | "node"; packages?: "external" },
): Promise<Metafile> {
  const { metafile } = await build({
    ...options,
    absWorkingDir: root,
    entryPoints: [source],
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    target: "es2022",
    conditions: ["@sisa/source"],
    external: optionalPeers,
    plugins: [nodeModules],
    logLevel: "silent",
  });
  return metafile;
}

/** Every import of a module of Node, as the chain of files that leads to it: `a.ts > b.ts > node:fs`. */
function chainsToNode(metafile: Metafile, entry: string): string[] {
  const chains: string[] = [];
  const seen = new Set<string>();
  const visit = (file: string, chain: readonly string[]): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const imported of metafile.inputs[file]?.imports ?? []) {
      if (imported.path.startsWith("node:")) chains.push([...chain, imported.path].join(" > "));
      else visit(imported.path, [...chain, imported.path]);
    }
  };
  visit(entry, [entry]);
  return chains;
}

const relative = (file: string) => path.relative(root, file).split(path.sep).join("/");

describe("the main entry runs in browsers", () => {
  const mainEntries = workspacePackages().flatMap((found) =>
    entries(found)
      .filter(({ entry }) => entry === ".")
      .map(({ source }) => ({ name: found.manifest.name, source })),
  );

  test.each(mainEntries)("$name", async ({ source }) => {
    const metafile = await bundle(source, { platform: "browser" });
    expect(chainsToNode(metafile, relative(source))).toEqual([]);
  });

  test("and this check sees an import of Node behind an entry", async () => {
    const metafile = await bundle(path.join(root, "tools/packages.test.ts"), {
      platform: "browser",
      packages: "external",
    });
    expect(chainsToNode(metafile, "tools/packages.test.ts")).toEqual(
      expect.arrayContaining([
        "tools/packages.test.ts > node:fs",
        "tools/packages.test.ts > tools/packages.ts > tools/run.mjs > node:child_process",
      ]),
    );
  });
});

describe("what is published imports only what it declares", () => {
  /** The packages that a source file imports, types left out. */
  async function importedPackages(source: string): Promise<string[]> {
    const metafile = await bundle(source, { platform: "node", packages: "external" });
    const imports = Object.values(metafile.inputs).flatMap((input) => input.imports);
    const names = imports
      // "<runtime>" is the bundler's own.
      .filter(({ external, path: imported }) => external === true && !/^(node:|<)/.test(imported))
      .map(({ path: imported }) =>
        imported
          .split("/")
          .slice(0, imported.startsWith("@") ? 2 : 1)
          .join("/"),
      );
    return [...new Set(names)];
  }

  /** The source files that tsup makes the published files from: the entries, and the programs in `bin`. */
  function publishedSources(found: WorkspacePackage): string[] {
    const programs = Object.values(found.manifest.bin ?? {}).map((file) =>
      path.join(found.folder, file.replace(/^\.\/dist\/(.+)\.js$/, "src/$1.ts")),
    );
    return [...entries(found).map(({ source }) => source), ...programs];
  }

  const published = publicPackages().flatMap((found) =>
    publishedSources(found).map((source) => ({ file: relative(source), source, found })),
  );

  test.each(published)("$file", async ({ source, found }) => {
    expect(existsSync(source)).toBe(true);
    const { dependencies, peerDependencies } = found.manifest;
    const declared = new Set(Object.keys({ ...dependencies, ...peerDependencies }));
    expect((await importedPackages(source)).filter((name) => !declared.has(name))).toEqual([]);
  });
});
