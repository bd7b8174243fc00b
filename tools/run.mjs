// Sets the workspace up where needed (install, build) and then runs one of its programs: `node tools/run.mjs TASK [ARGUMENTS]`.
// Plain JavaScript without dependencies, since it runs before anything is installed.
import { spawn, spawnSync } from "node:child_process";
import { readFileSync, realpathSync, statSync, utimesSync } from "node:fs";
import { constants } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The folder that holds the workspace. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/**
 * A program of the workspace. `program` is a script for Node, relative to the root; without one the set-up is all there is to do.
 * `build` compiles the packages first; `directory` is where the program runs: where the user called npm, or the root.
 * @typedef {{ program?: string, arguments?: readonly string[], build: boolean, directory: "caller" | "root" }} Task
 */

/** @type {Readonly<Record<string, Task>>} */
export const tasks = {
  demo: { program: "apps/cli/dist/demo.js", build: true, directory: "caller" },
  sisa: { program: "apps/cli/dist/sisa.js", build: true, directory: "caller" },
  bench: { program: "bench/run.mjs", build: true, directory: "root" },
  // Vite reads the sources; nothing has to be built for it.
  playground: {
    program: "apps/playground/node_modules/vite/bin/vite.js",
    arguments: ["apps/playground"],
    build: false,
    directory: "root",
  },
  docs: { program: "docs/build.mjs", build: false, directory: "root" },
  release: { program: "tools/release.mjs", build: true, directory: "root" },
  build: { build: true, directory: "root" },
  // These build by themselves, so that a broken build is reported as a failed check.
  test: { program: "tools/test.mjs", build: false, directory: "root" },
  check: { program: "tools/test.mjs", arguments: ["--check"], build: false, directory: "root" },
};

/** Whether the packages have to be installed: never yet, or the lock file is newer than the last installation. */
export function installNeeded(/** @type {string} */ directory) {
  const installed = modifiedMs(path.join(directory, "node_modules", ".modules.yaml"));
  const locked = modifiedMs(path.join(directory, "pnpm-lock.yaml"));
  return installed === undefined || (locked !== undefined && installed < locked);
}

/** The exact package manager that package.json names, such as `pnpm@10.34.8`, without a hash that may follow it. */
export function packageManager(/** @type {string} */ directory) {
  const { packageManager: named } = JSON.parse(readFileSync(path.join(directory, "package.json"), "utf8"));
  const match = typeof named === "string" ? /^(pnpm@\d+\.\d+\.\d+)(\+.*)?$/.exec(named) : null;
  if (match?.[1] === undefined) {
    throw new Error(
      `package.json: expected an exact packageManager such as "pnpm@10.34.8", got ${JSON.stringify(named)}`,
    );
  }
  return match[1];
}

/** The exit code of a finished child process; one that a signal ended counts as 128 plus the signal's number, as in shells. */
export function exitCode(/** @type {number | null} */ code, /** @type {NodeJS.Signals | null} */ signal) {
  if (code !== null) return code;
  return signal === null ? 1 : 128 + constants.signals[signal];
}

/** Installs the locked packages where that is needed. Returns the exit code. */
function install() {
  if (!installNeeded(root)) return 0;
  const manager = packageManager(root);
  process.stderr.write(`Installing the packages with ${manager} ...\n`);
  const code = runToEnd("npx", ["--yes", manager, "install", "--frozen-lockfile"], {
    shell: process.platform === "win32",
  });
  if (code === 0) {
    // An installation that finds nothing to do leaves the file as old as it was.
    const now = new Date();
    utimesSync(path.join(root, "node_modules", ".modules.yaml"), now, now);
    process.stderr.write("Installed. The first build takes about half a minute.\n");
  } else {
    process.stderr.write(`Installing failed (${manager}, exit code ${code}); the lines above say why.\n`);
  }
  return code;
}

/** The environment with the workspace's programs first: turbo and changesets start the package manager by name. */
export function environment() {
  const bin = path.join(root, "node_modules", ".bin");
  return { ...process.env, PATH: `${bin}${path.delimiter}${process.env.PATH ?? ""}` };
}

/** Builds every package that changed. Returns the exit code. */
export function build() {
  const turbo = path.join(root, "node_modules", "turbo", "bin", "turbo");
  return runToEnd(
    process.execPath,
    [turbo, "run", "build", "--output-logs=errors-only", "--log-prefix=none", "--concurrency=2"],
    {
      stdio: ["inherit", "pipe", "pipe"],
      env: {
        ...environment(),
        DO_NOT_TRACK: "1",
        TURBO_TELEMETRY_DISABLED: "1",
        TURBO_NO_UPDATE_NOTIFIER: "1",
      },
    },
  );
}

/**
 * Runs a command in the root and waits for it. Output that was captured is shown only when the command failed.
 * @param {string} command
 * @param {readonly string[]} commandArguments
 * @param {import("node:child_process").SpawnSyncOptions} [options]
 */
function runToEnd(command, commandArguments, options) {
  const result = spawnSync(command, commandArguments, { cwd: root, stdio: "inherit", ...options });
  if (result.error !== undefined) throw result.error;
  const code = exitCode(result.status, result.signal);
  if (code !== 0) {
    for (const captured of [result.stdout, result.stderr]) {
      if (captured !== null) process.stderr.write(captured);
    }
  }
  return code;
}

/**
 * Runs a script with Node, with nothing in between, and resolves with its exit code. The parent outlives Ctrl-C: the terminal
 * sends the signal to the child as well, which may still have to save.
 * @param {string} program
 * @param {readonly string[]} programArguments
 * @param {string} directory
 * @returns {Promise<number>}
 */
export function runProgram(program, programArguments, directory) {
  const ignore = () => {};
  process.on("SIGINT", ignore);
  process.on("SIGTERM", ignore);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...programArguments], { cwd: directory, stdio: "inherit" });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(exitCode(code, signal)));
  }).finally(() => {
    process.off("SIGINT", ignore);
    process.off("SIGTERM", ignore);
  });
}

/** Sets up, runs the named task and returns its exit code. */
export async function main(/** @type {readonly string[]} */ commandLine) {
  const [name = "", ...rest] = commandLine;
  const task = Object.hasOwn(tasks, name) ? tasks[name] : undefined;
  if (task === undefined) {
    process.stderr.write(`tools/run.mjs: expected one of ${Object.keys(tasks).join(", ")}, got "${name}".\n`);
    return 2;
  }
  const code = install() || (task.build ? build() : 0);
  if (code !== 0 || task.program === undefined) return code;
  const directory = task.directory === "root" ? root : (process.env.INIT_CWD ?? process.cwd());
  return runProgram(path.join(root, task.program), [...(task.arguments ?? []), ...rest], directory);
}

function modifiedMs(/** @type {string} */ file) {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv.slice(2));
}
