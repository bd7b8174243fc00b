// The runner in made-up workspaces: a folder with a copy of run.mjs, a turbo, an npx and programs that only report how they were called.
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { exitCode, installNeeded, packageManager, root, tasks } from "./run.mjs";

let workspace: string;
let log: string;

beforeEach(() => {
  workspace = realpathSync(mkdtempSync(path.join(tmpdir(), "sisa-run-")));
  log = path.join(workspace, "log.txt");
  cpSync(path.join(root, "tools/run.mjs"), path.join(workspace, "tools/run.mjs"));
  write("package.json", JSON.stringify({ type: "module", packageManager: "pnpm@1.2.3" }));
  write("log.txt", "");
  write("pnpm-lock.yaml", "");
  write("node_modules/.modules.yaml", "");
  age("pnpm-lock.yaml", 60);
  reporter("node_modules/turbo/bin/turbo", "turbo");
  reporter("bin/npx", "npx");
});

afterEach(() => {
  rmSync(workspace, { recursive: true, force: true });
});

function write(file: string, text: string, mode = 0o644): void {
  const full = path.join(workspace, file);
  mkdirSync(path.dirname(full), { recursive: true });
  writeFileSync(full, text, { mode });
}

function age(file: string, seconds: number): void {
  const date = new Date(Date.now() - seconds * 1000);
  utimesSync(path.join(workspace, file), date, date);
}

/** Writes a program that logs its name, folder and arguments, and then runs `rest`. */
function reporter(file: string, name: string, rest = ""): void {
  write(
    file,
    `#!${process.execPath}
import { appendFileSync } from "node:fs";
appendFileSync(${JSON.stringify(log)}, [${JSON.stringify(name)}, process.cwd(), ...process.argv.slice(2)].join(" ") + "\\n");
${rest}`,
    0o755,
  );
}

function environment(callerFolder: string): NodeJS.ProcessEnv {
  const PATH = `${path.join(workspace, "bin")}${path.delimiter}${process.env.PATH}`;
  return { ...process.env, PATH, INIT_CWD: callerFolder };
}

function run(...commandLine: string[]) {
  const { status, stderr } = spawnSync(process.execPath, [path.join(workspace, "tools/run.mjs"), ...commandLine], {
    cwd: workspace,
    env: environment(path.join(workspace, "bin")),
    encoding: "utf8",
  });
  return { status, stderr, log: readFileSync(log, "utf8").trimEnd().split("\n") };
}

const turboLine = () => `turbo ${workspace} run build --output-logs=errors-only --log-prefix=none --concurrency=2`;

describe("a task", () => {
  test("is built and then run where the user is, with the arguments and the exit code passed on", () => {
    reporter("apps/cli/dist/sisa.js", "sisa", "process.exitCode = 7;");
    const result = run("sisa", "train", "--steps", "3");
    expect(result.log).toEqual([turboLine(), `sisa ${workspace}/bin train --steps 3`]);
    expect(result.status).toBe(7);
  });

  test("is not run after a failed build", () => {
    reporter("node_modules/turbo/bin/turbo", "turbo", 'console.log("the reason"); process.exitCode = 3;');
    reporter("apps/cli/dist/sisa.js", "sisa");
    const result = run("sisa");
    expect(result.log).toEqual([turboLine()]);
    expect(result).toMatchObject({ status: 3, stderr: expect.stringContaining("the reason") });
  });

  test("runs in the root where it belongs to the workspace", () => {
    reporter("tools/test.mjs", "test");
    expect(run("check", "packages/core")).toMatchObject({
      status: 0,
      log: [`test ${workspace} --check packages/core`],
    });
  });

  test("is refused when there is no such task", () => {
    expect(run("deploy")).toMatchObject({
      status: 2,
      stderr:
        'tools/run.mjs: expected one of demo, sisa, bench, playground, docs, release, build, test, check, got "deploy".\n',
    });
    expect(run("toString").status).toBe(2);
  });
});

describe("installation", () => {
  test("is done with the pinned package manager where it never was, and not again", () => {
    rmSync(path.join(workspace, "node_modules/.modules.yaml"));
    const file = JSON.stringify(path.join(workspace, "node_modules/.modules.yaml"));
    reporter("bin/npx", "npx", `import { writeFileSync } from "node:fs"; writeFileSync(${file}, "");`);
    reporter("tools/test.mjs", "test");
    const npxLine = `npx ${workspace} --yes pnpm@1.2.3 install --frozen-lockfile`;
    expect(run("test").log).toEqual([npxLine, `test ${workspace}`]);
    expect(run("test").log).toEqual([npxLine, `test ${workspace}`, `test ${workspace}`]);
  });

  test("is done once for a newer lock file, even where it changes nothing", () => {
    age("node_modules/.modules.yaml", 120);
    reporter("tools/test.mjs", "test");
    run("test");
    expect(run("test").log.map((line) => line.split(" ")[0])).toEqual(["npx", "test", "test"]);
  });

  test("that fails ends with its exit code and starts nothing", () => {
    rmSync(path.join(workspace, "node_modules/.modules.yaml"));
    reporter("bin/npx", "npx", "process.exitCode = 5;");
    reporter("tools/test.mjs", "test");
    const result = run("test");
    expect(result.log).toHaveLength(1);
    expect(result).toMatchObject({ status: 5, stderr: expect.stringContaining("pnpm@1.2.3, exit code 5") });
  });

  test("is needed without an installation or with a newer lock file", () => {
    expect(installNeeded(workspace)).toBe(false);
    age("node_modules/.modules.yaml", 120);
    expect(installNeeded(workspace)).toBe(true);
    rmSync(path.join(workspace, "node_modules"), { recursive: true });
    expect(installNeeded(workspace)).toBe(true);
  });
});

describe("signals", () => {
  test.each(["SIGINT", "SIGTERM"] as const)(
    "%s does not end the parent of a program that is still saving",
    async (signal) => {
      // The program sends the signal to its parent only, and finishes a moment later.
      reporter(
        "apps/cli/dist/sisa.js",
        "sisa",
        `process.kill(process.ppid, "${signal}"); setTimeout(() => process.exit(9), 300);`,
      );
      const parent = spawn(process.execPath, [path.join(workspace, "tools/run.mjs"), "sisa"], {
        env: environment(workspace),
        stdio: "ignore",
      });
      const ended = await new Promise((resolve) => parent.on("close", (code, by) => resolve({ code, by })));
      expect(ended).toEqual({ code: 9, by: null });
    },
  );

  test("that end the program become the exit code of shells", () => {
    reporter("apps/cli/dist/sisa.js", "sisa", 'process.kill(process.pid, "SIGKILL"); setTimeout(() => {}, 10_000);');
    expect(run("sisa").status).toBe(137);
    expect(exitCode(null, "SIGINT")).toBe(130);
    expect(exitCode(4, null)).toBe(4);
  });
});

describe("package.json", () => {
  const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));

  test("pins the package manager exactly, and installs the same version", () => {
    expect(packageManager(root)).toBe(`pnpm@${manifest.devDependencies.pnpm}`);
    write("package.json", JSON.stringify({ packageManager: "pnpm@10.34.8+sha512.abc" }));
    expect(packageManager(workspace)).toBe("pnpm@10.34.8");
    write("package.json", JSON.stringify({ packageManager: "pnpm@^10" }));
    expect(() => packageManager(workspace)).toThrow(
      'expected an exact packageManager such as "pnpm@10.34.8", got "pnpm@^10"',
    );
  });

  test("has only scripts that name a task, or a program that is installed", () => {
    const named = Object.values<string>(manifest.scripts).map((script) => script.split(" "));
    for (const [program, file, task] of named) {
      if (program === "node")
        expect([file, Object.keys(tasks)]).toEqual(["tools/run.mjs", expect.arrayContaining([task])]);
      else expect(["biome", "changeset"]).toContain(program);
    }
  });
});
