import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { shells } from "./completion.ts";
import { run, temporaryFolder } from "./testing.ts";

const commands = (await run("/", ["--help"])).stdout.matchAll(/^ {2}([a-z]+) (?:\[options\]|<)/gm);
const names = [...commands].map(([, name = ""]) => name);

/** The long options that the help of a command lists, without what every command has. */
async function flagsOf(name: string): Promise<string[]> {
  const { stdout } = await run("/", [name, "--help"]);
  return [...stdout.matchAll(/^ {2}(?:-\w, )?(--[a-z.0-9-]+)/gm)].map(([, flag = ""]) => flag);
}

describe("in bash", () => {
  /** What bash offers for a line whose last word is being typed, the script having been sourced. */
  async function offered(...line: readonly string[]): Promise<string[]> {
    const folder = await temporaryFolder();
    const { stdout: script } = await run("/", ["completion", "bash"]);
    await writeFile(join(folder, "completion"), script);
    const words = ["sisa", ...line].map((word) => `"${word}"`).join(" ");
    const ask = [
      "source ./completion",
      `COMP_WORDS=(${words}) COMP_CWORD=${line.length}`,
      "complete -p sisa",
      "_sisa",
      `printf "%s\\n" "\${COMPREPLY[@]}"`,
    ].join("\n");
    const { stdout } = await promisify(execFile)("bash", ["--norc", "-c", ask], { cwd: folder });
    const [registered, ...replies] = stdout.trim().split("\n");
    expect(registered).toBe("complete -o default -F _sisa sisa");
    return replies.filter((reply) => reply !== "");
  }

  it("offers every command", async () => {
    expect(await offered("")).toEqual(expect.arrayContaining([...names, "help"]));
    expect(await offered("ex")).toEqual(["experiment", "export"]);
  });

  it("offers every option of a command", async () => {
    for (const name of names)
      expect(await offered(name, "-"), name).toEqual(expect.arrayContaining(await flagsOf(name)));
    expect(await offered("generate", "my-model", "--top")).toEqual(["--top-k", "--top-p"]);
  });

  it("offers what an option or an argument can be, and leaves the rest to bash, which offers files", async () => {
    expect(await offered("generate", "my-model", "--backend", "")).toEqual([
      "onnxruntime",
      "reference",
      "webgpu",
      "cuda",
    ]);
    expect(await offered("train", "--precision", "b")).toEqual(["bfloat16"]);
    expect(await offered("train", "--model.size", "5")).toEqual(["5m", "50m"]);
    expect(await offered("completion", "")).toEqual(["bash", "zsh", "fish"]);
    expect(await offered("inspect", "my-mo")).toEqual([]);
    expect(await offered("inspect", "--text", "-")).toEqual([]);
  });
});

it.each(["zsh", "fish"])("in %s every option of every command is named", async (shell) => {
  const { stdout } = await run("/", ["completion", shell]);
  const flagged = (flag: string): string => (shell === "zsh" ? `'*${flag}[` : ` -l ${flag.slice(2)} `);
  for (const name of names) for (const flag of await flagsOf(name)) expect(stdout).toContain(flagged(flag));
});

it("names the shells that it knows", async () => {
  expect(shells).toEqual(["bash", "zsh", "fish"]);
  const { code, error } = await run("/", ["completion", "csh"]);
  expect(error).toContain("Allowed choices are bash, zsh, fish");
  expect(code).toBe(2);
});
