// The packages as files that a registry would get.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "./command.ts";

/** The folder that holds the workspace. */
export const workspace = fileURLToPath(new URL("../../..", import.meta.url));

export const pnpm = path.join(workspace, "node_modules/pnpm/bin/pnpm.cjs");

export interface PackedPackage {
  readonly name: string;
  readonly folder: string;
  /** Path of the .tgz file. */
  readonly tarball: string;
}

/** Builds the packages and packs every one that is published. */
export async function packAll(to: string): Promise<PackedPackage[]> {
  await run(process.execPath, [path.join(workspace, "tools/run.mjs"), "build"], { cwd: workspace });
  const packed: PackedPackage[] = [];
  for (const { name, folder } of publishedPackages()) {
    const target = path.join(to, path.basename(folder));
    await mkdir(target, { recursive: true });
    await run(process.execPath, [pnpm, "pack", "--pack-destination", target], { cwd: folder });
    const [file] = await readdir(target);
    if (file === undefined) throw new Error(`${name}: nothing was packed`);
    packed.push({ name, folder, tarball: path.join(target, file) });
  }
  return packed;
}

/** Name and folder of every package that is published. */
export function publishedPackages(): { readonly name: string; readonly folder: string }[] {
  return ["packages", "apps"]
    .flatMap((parent) => readdirSync(path.join(workspace, parent)).map((name) => path.join(workspace, parent, name)))
    .filter((folder) => existsSync(path.join(folder, "package.json")))
    .map((folder) => ({ folder, manifest: JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8")) }))
    .filter(({ manifest }) => manifest.private !== true)
    .map(({ folder, manifest }) => ({ name: manifest.name, folder }));
}
