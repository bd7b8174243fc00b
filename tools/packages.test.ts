// What every package.json must say, and that the lock file fits any registry.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { entries, publicPackages, workspacePackages } from "./packages.ts";
import { root } from "./run.mjs";

describe.each(publicPackages().map((found) => ({ name: found.manifest.name, found })))("$name", ({ found }) => {
  const { manifest } = found;

  test("has the metadata of a published package", () => {
    expect(manifest).toMatchObject({
      name: expect.stringMatching(/^@sisa\/[a-z-]+$/),
      description: expect.stringMatching(/^.{20,}\.$/),
      keywords: expect.arrayContaining(["sisa"]),
      license: "Apache-2.0",
      type: "module",
      sideEffects: false,
      engines: { node: ">=20.19" },
      files: ["CHANGELOG.md", "dist"],
      publishConfig: { access: "public" },
      scripts: { build: "tsup" },
    });
  });

  test("offers sources inside the workspace only, and its conditions in the order in which they have to be tried", () => {
    const published: Record<string, Record<string, string>> = {};
    for (const [entry, conditions] of Object.entries(manifest.exports ?? {})) {
      if (typeof conditions === "string") throw new Error(`${entry}: expected conditions, got "${conditions}"`);
      // An entry for Node has nothing for bundlers for browsers, which then say so.
      const last = entry === "./node" ? "node" : "default";
      const order = ["@sisa/source", "types", "browser", last];
      expect(Object.keys(conditions)).toEqual(order.filter((condition) => condition in conditions));
      expect(conditions).toMatchObject({ types: expect.any(String), [last]: expect.any(String) });
      const { "@sisa/source": source, ...rest } = conditions;
      expect(source).toMatch(/^\.\/src\/.+\.ts$/);
      published[entry] = rest;
    }
    expect(manifest.publishConfig?.exports).toEqual(published);
  });

  test("has the version of all others: they are released together", () => {
    expect(new Set(publicPackages().map((other) => other.manifest.version))).toEqual(new Set([manifest.version]));
  });
});

describe.each(workspacePackages().map((found) => ({ name: found.manifest.name, found })))("$name", ({ found }) => {
  test("has the source of every entry", () => {
    expect(entries(found).filter(({ source }) => !existsSync(source))).toEqual([]);
  });

  test("depends on our packages as they are in the workspace", () => {
    const { dependencies, devDependencies } = found.manifest;
    const ours = Object.entries({ ...dependencies, ...devDependencies }).filter(([name]) => name.startsWith("@sisa/"));
    expect(ours.filter(([, range]) => range !== "workspace:^")).toEqual([]);
    expect(Object.keys(found.manifest.peerDependencies ?? {}).filter((name) => name.startsWith("@sisa/"))).toEqual([]);
  });
});

test("core depends on nothing", () => {
  const core = publicPackages().find(({ manifest }) => manifest.name === "@sisa/core");
  expect(core?.manifest.license).toBe("Apache-2.0");
  expect(core?.manifest.dependencies).toBeUndefined();
  expect(core?.manifest.peerDependencies).toBeUndefined();
});

test("no file ties an installation to one registry", () => {
  expect(readFileSync(path.join(root, "pnpm-lock.yaml"), "utf8")).not.toMatch(/https?:|tarball:/);
  for (const file of [".npmrc", "pnpm-workspace.yaml", "package.json"]) {
    const full = path.join(root, file);
    if (existsSync(full)) expect(readFileSync(full, "utf8")).not.toMatch(/registry\s*[=:]/);
  }
});
