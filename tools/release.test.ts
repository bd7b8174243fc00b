// What a release does to versions and changelogs, on a copy of what it reads.
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { publicPackages, workspacePackages } from "./packages.ts";
import { root } from "./run.mjs";

/** Makes a folder a repository with one commit. */
function commitAll(cwd: string): void {
  const git = (...words: string[]) => execFileSync("git", words, { cwd, stdio: "ignore" });
  git("init");
  git("add", ".");
  git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-m", "A change");
}

test("a change to one package gives all packages one new version, and each a changelog", () => {
  const copy = mkdtempSync(path.join(tmpdir(), "sisa-versions-"));
  const manifests = workspacePackages().map(({ folder }) => path.relative(root, path.join(folder, "package.json")));
  const published = publicPackages().map(({ folder }) => path.relative(root, folder));
  const changelogs = published.map((folder) => path.join(folder, "CHANGELOG.md"));
  for (const file of ["package.json", "pnpm-workspace.yaml", ".changeset/config.json", ...manifests, ...changelogs]) {
    mkdirSync(path.dirname(path.join(copy, file)), { recursive: true });
    cpSync(path.join(root, file), path.join(copy, file));
  }
  writeFileSync(path.join(copy, ".changeset/change.md"), '---\n"@sisa/core": minor\n---\n\nAn operation more.\n');
  commitAll(copy);
  execFileSync(process.execPath, [path.join(root, "node_modules/@changesets/cli/bin.js"), "version"], {
    cwd: copy,
    stdio: "ignore",
  });

  const before = publicPackages()[0]?.manifest.version ?? "";
  const [major, minor] = before.split(".").map(Number);
  const after = `${major}.${(minor ?? 0) + 1}.0`;
  for (const folder of published) {
    expect(JSON.parse(readFileSync(path.join(copy, folder, "package.json"), "utf8")).version).toBe(after);
    const changelog = readFileSync(path.join(copy, folder, "CHANGELOG.md"), "utf8");
    expect(
      changelog
        .split("\n")
        .filter((line) => line.startsWith("## "))
        .slice(0, 2),
    ).toEqual([`## ${after}`, `## ${before}`]);
    const change = folder.endsWith("core") ? "An operation more." : `@sisa/core@${after}`;
    expect(changelog).toContain(change);
  }
  rmSync(copy, { recursive: true });
});

test("with provenance, no package is released that does not say where its sources are", () => {
  const copy = mkdtempSync(path.join(tmpdir(), "sisa-provenance-"));
  for (const { folder } of workspacePackages()) {
    const file = path.join(path.relative(root, folder), "package.json");
    mkdirSync(path.dirname(path.join(copy, file)), { recursive: true });
    const manifest = JSON.parse(readFileSync(path.join(root, file), "utf8"));
    const { repository: _, ...without } = manifest;
    writeFileSync(
      path.join(copy, file),
      JSON.stringify(file.includes("core") ? without : { ...manifest, repository: "x" }),
    );
  }
  cpSync(path.join(root, "tools"), path.join(copy, "tools"), { recursive: true });
  commitAll(copy);
  const env = { ...process.env, CI: "true" };
  const { status, stderr } = spawnSync(process.execPath, ["tools/release.mjs"], { cwd: copy, encoding: "utf8", env });
  expect(stderr).toMatch(
    /^release: provenance names the repository, .* which @sisa\/core lack; add it, or release with/,
  );
  expect(status).toBe(1);
  rmSync(copy, { recursive: true });
});
