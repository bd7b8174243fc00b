import { BackendUnavailableError, CheckpointError, ConfigError, DataError, DeviceError } from "@sisa/core";
import { StorageError } from "@sisa/hub";
import { describe, expect, it } from "vitest";
import manifest from "../package.json" with { type: "json" };
import { errorLine, exitCode, exitCodeOf, InterruptedError } from "./exit-codes.ts";
import { paint } from "./io.ts";
import { run, testIo } from "./testing.ts";

const help = await run("/", ["--help"]);
const commands = [...help.stdout.matchAll(/^ {2}([a-z]+) (?:\[options\]|<)/gm)].map(([, name = ""]) => name);

describe("the command line", () => {
  it("shows commands and exit codes, and the version", async () => {
    expect(help.code).toBe(0);
    expect(commands).toEqual(expect.arrayContaining(["prepare", "train", "eval", "generate", "serve", "completion"]));
    for (const code of Object.values(exitCode)) expect(help.stdout).toMatch(new RegExp(`^  ${code} +\\w`, "m"));
    expect((await run("/", ["--version"])).stdout).toBe(`${manifest.version}\n`);
  });

  it.each(commands)("shows examples of %s", async (name) => {
    const { code, stdout } = await run("/", [name, "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("Examples:\n  $ ");
    expect(stdout).toContain(`sisa ${name} `);
    // What prints a script prints nothing else already.
    expect(stdout.includes("--json")).toBe(name !== "completion");
  });

  it.each([
    [["verfy"], "unknown command 'verfy' (Did you mean verify?)"],
    [["generate"], "missing required argument 'model'"],
    [["generate", "m", "--sed", "1"], "unknown option '--sed' (Did you mean --seed?)"],
    [["generate", "m", "--temperature", "hot"], "Expected a number >= 0."],
    [["generate", "m", "--top-k", "1.5"], "Expected a whole number >= 0."],
    [["generate", "m", "--max-tokens"], "argument missing"],
    [["generate", "m", "--stop", ""], "--stop: expected a text"],
    [["verify", "f", "--form", "fast"], "Allowed choices are exact, sdpa"],
    [["eval", "m", "--tasks", "chess"], 'got "chess"'],
    [["export", "m"], "required option '--to <folder>' not specified"],
    [["doctor", "now"], "too many arguments for 'doctor'. Expected 0 arguments but got 1. See sisa doctor --help"],
    [["dance"], "unknown command 'dance'; see sisa --help"],
    [["help", "trian"], 'got "trian"; did you mean "train"?'],
    [["eval", "m", "--tasks", "perplexty"], 'got "perplexty"; did you mean "perplexity"?'],
    [
      ["train", "--model.preset", "sisaa", "--model.size", "5m", "--data.synthetic", "mqar"],
      "model.preset: expected one of sisa,",
    ],
    [["train", "--model.preset", "sisa", "--data.synthetic", "mqar"], "model.size: expected one of 1m, 5m,"],
  ])("refuses %j in one line", async (words, message) => {
    const { code, error, stderr, stdout } = await run("/", words);
    expect(error).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(code).toBe(2);
    expect(stdout).toBe("");
  });

  it("shows help where no command is given, as an error", async () => {
    const { code, stderr } = await run("/", []);
    expect(code).toBe(2);
    expect(stderr).toContain("Usage: sisa");
  });

  it("shows a command by help as by --help, and the exit codes", async () => {
    const { code, stdout } = await run("/", ["help", "train"]);
    expect([code, stdout]).toEqual([0, (await run("/", ["train", "--help"])).stdout]);
    expect((await run("/", ["help", "exit-codes"])).stdout).toMatch(/^Exit codes:\n {2}0 +done\n/);
  });

  it("shows the stack only with --debug", async () => {
    const { code, stderr } = await run("/", ["inspect", "/nowhere/at/all"]);
    expect([code, stderr]).toEqual([3, "error: /nowhere/at/all: there is no such model folder, run or checkpoint\n"]);
    await expect(run("/", ["--debug", "inspect", "/nowhere/at/all"])).rejects.toThrow("expected no stack");
  });
});

it.each([
  [new ConfigError("a"), 2],
  [new CheckpointError("a"), 3],
  [new DataError("a"), 3],
  [new StorageError("missing", "a"), 3],
  [new StorageError("full", "a"), 1],
  [new BackendUnavailableError("a"), 1],
  [new DeviceError("a"), 1],
  [new TypeError("a"), 1],
  [new InterruptedError("SIGINT", "a"), 130],
  [new InterruptedError("SIGTERM", "a"), 143],
])("gives %s an exit code", (error, code) => {
  expect(exitCodeOf(error)).toBe(code);
});

it("tells errors in one line, and those that nobody expected by their class", () => {
  expect(errorLine(new DataError("a\n  b"))).toBe("a b");
  expect(errorLine(Object.assign(new Error("ENOENT: no such file"), { syscall: "open" }))).toBe("ENOENT: no such file");
  expect(errorLine(new TypeError("x is undefined"))).toBe("unexpected TypeError: x is undefined (--debug shows where)");
});

it("colours only terminals, and not where NO_COLOR is set", () => {
  const io = testIo("/");
  const terminal = { ...io.stdout, isTTY: true };
  expect(paint(io, io.stdout, "red", "a")).toBe("a");
  expect(paint(io, terminal, "red", "a")).toBe("\x1b[31ma\x1b[39m");
  expect(paint(testIo("/", { env: { NO_COLOR: "1" } }), terminal, "red", "a")).toBe("a");
});
