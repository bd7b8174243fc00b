// The packages of the workspace, as the tests in this folder look at them.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { root } from "./run.mjs";

/** One entry of a package's `exports`: a path for each condition, in the order in which they are tried. */
export type Conditions = Readonly<Record<string, string>>;

/** What the tests read of a package.json. */
export interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly private?: boolean;
  readonly license?: string;
  readonly description?: string;
  readonly type?: string;
  readonly bin?: Readonly<Record<string, string>>;
  readonly sideEffects?: boolean;
  readonly files?: readonly string[];
  readonly engines?: Readonly<Record<string, string>>;
  readonly exports?: Readonly<Record<string, Conditions | string>>;
  readonly publishConfig?: { readonly access?: string; readonly exports?: Readonly<Record<string, Conditions>> };
  readonly scripts?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

/** A package and its folder, an absolute path. */
export interface WorkspacePackage {
  readonly folder: string;
  readonly manifest: Manifest;
}

/** Every package under packages/ and apps/. */
export function workspacePackages(): WorkspacePackage[] {
  return ["packages", "apps"]
    .flatMap((parent) => readdirSync(path.join(root, parent)).map((name) => path.join(root, parent, name)))
    .filter((folder) => existsSync(path.join(folder, "package.json")))
    .map((folder) => ({ folder, manifest: JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8")) }));
}

/** The packages that are published. */
export function publicPackages(): WorkspacePackage[] {
  return workspacePackages().filter(({ manifest }) => manifest.private !== true);
}

/** The entries of a package, such as `"."` and `"./node"`, with the source file of each. */
export function entries({ folder, manifest }: WorkspacePackage): { entry: string; source: string }[] {
  return Object.entries(manifest.exports ?? {}).map(([entry, conditions]) => {
    const source = typeof conditions === "string" ? conditions : conditions["@sisa/source"];
    if (source === undefined)
      throw new Error(`${manifest.name}: expected a condition "@sisa/source" for entry "${entry}"`);
    return { entry, source: path.join(folder, source) };
  });
}
