// Releases all packages with their common version: `pnpm release`. With --dry-run everything but that: the checks, and all
// packages published to a registry on this machine and installed from there in fresh projects.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { environment, root } from "./run.mjs";

const dryRun = process.argv.includes("--dry-run");
const installed = (/** @type {string} */ file) => path.join(root, "node_modules", file);

/**
 * Runs a script with Node; where it fails, so does the release.
 * @param {readonly string[]} words
 * @param {Readonly<Record<string, string>>} [env]
 */
function run(words, env = {}) {
  const options = { cwd: root, stdio: /** @type {const} */ ("inherit"), env: { ...environment(), ...env } };
  const { status } = spawnSync(process.execPath, words, options);
  if (status !== 0) process.exit(status ?? 1);
}

if (dryRun) {
  run([path.join(root, "tools/test.mjs"), "--check"]);
  run([installed("vitest/vitest.mjs"), "run", "tools/release.test.ts", "packages/release-testing"]);
  const { version } = JSON.parse(readFileSync(path.join(root, "packages/core/package.json"), "utf8"));
  process.stdout.write(
    `Dry run of ${version}: all packages were published to a registry on this machine, installed from there and used.\n` +
      `It is gone again; \`pnpm release\` publishes in earnest, and tags each package NAME@${version}.\n`,
  );
} else {
  const { stdout } = spawnSync("git", ["status", "--porcelain"], { cwd: root, encoding: "utf8" });
  if (stdout !== "") {
    process.stderr.write("release: expected a clean work tree; commit versions and changelogs first.\n");
    process.exit(1);
  }
  run([path.join(root, "tools/test.mjs")]);
  // Provenance says which build made a package; registries take it only from a CI that can prove it.
  const provenance = process.env.CI === undefined ? "false" : "true";
  run([installed("@changesets/cli/bin.js"), "publish"], { npm_config_provenance: provenance });
}
