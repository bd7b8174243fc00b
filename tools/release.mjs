// Releases all packages with their common version: `pnpm release`. With --dry-run everything but that: the checks, and all
// packages published to a registry on this machine and installed from there in fresh projects. --no-provenance releases from
// a CI without it.
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { environment, root } from "./run.mjs";

const dryRun = process.argv.includes("--dry-run");
// It says which build made a package, and is given by a CI that can prove it.
const provenance = process.env.CI !== undefined && !process.argv.includes("--no-provenance");
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

/** @param {string} message */
function refuse(message) {
  process.stderr.write(`release: ${message}\n`);
  process.exit(1);
}

/** Names of the published packages that do not say where their sources are. */
function withoutRepository() {
  const folders = ["packages", "apps"].flatMap((parent) =>
    readdirSync(path.join(root, parent)).map((name) => path.join(root, parent, name)),
  );
  const manifests = folders.map((folder) => JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8")));
  return manifests.filter((manifest) => !manifest.private && !manifest.repository).map(({ name }) => name);
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
  const { stdout, status } = spawnSync("git", ["status", "--porcelain"], { cwd: root, encoding: "utf8" });
  if (status !== 0 || stdout !== "") refuse("expected a clean work tree; commit versions and changelogs first.");
  const nameless = withoutRepository();
  if (provenance && nameless.length > 0) {
    refuse(
      `provenance names the repository, and registries compare it with the field "repository" of each package.json, which ` +
        `${nameless.join(", ")} lack; add it, or release with --no-provenance.`,
    );
  }
  run([path.join(root, "tools/test.mjs")]);
  run([installed("@changesets/cli/bin.js"), "publish"], { npm_config_provenance: String(provenance) });
}
