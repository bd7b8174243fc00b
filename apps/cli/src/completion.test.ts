import { execFile, spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
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
    expect(await offered("help", "tr")).toEqual(["train"]);
    expect(await offered("inspect", "my-mo")).toEqual([]);
    expect(await offered("inspect", "--text", "-")).toEqual([]);
  });
});

/** Words that are cut off where Tab is pressed, and what becomes of the last. */
const completed: readonly (readonly [line: string, last: string])[] = [
  ["sisa exper", "experiment"],
  ["sisa generate my-model --top-k", "--top-k"],
  ["sisa generate my-model --max-t", "--max-tokens"],
  ["sisa train --model.si", "--model.size"],
  ["sisa train --model.size 50", "50m"],
  ["sisa train --precision bfl", "bfloat16"],
  ["sisa generate my-model --backend onn", "onnxruntime"],
  ["sisa completion z", "zsh"],
  ["sisa help exit", "exit-codes"],
  ["sisa inspect my-mo", "my-model/"],
  ["sisa eval my-model --text corp", "corpus.txt"],
];

/** What each shell's own engine makes of the last words of lines, in a folder that has the script as `completion`. */
const engines: Readonly<Record<string, (lines: readonly string[], cwd: string) => Promise<string[]>>> = {
  // A shell on a terminal of its own, in which Tab is pressed; Ctrl-X shows what then stands on the line.
  async zsh(lines, cwd) {
    const setUp = [
      "PS1=",
      "autoload -Uz compinit",
      "compinit -u -D",
      "source ./completion",
      'shown() { print -r -- "<<$BUFFER>>"; BUFFER= }',
      "zle -N shown",
      "bindkey '^X' shown",
      // Not as it is typed, which the terminal echoes.
      "print re''ady",
    ];
    const drive = [
      "zmodload zsh/zpty",
      "zpty -b inner zsh -f -i",
      `zpty -w inner ${quoted(setUp.join("; "))}`,
      "zpty -r -m inner output '*ready*'",
      ...lines.flatMap((line) => [
        `zpty -n -w inner ${quoted(line)}$'\\t\\x18'`,
        "zpty -r -m inner output '*<<*>>*'",
        'print -r -- "$output"',
      ]),
    ];
    const options = { cwd, timeout: shellTimeoutMs, env: { ...process.env, TERM: "dumb" } };
    const { stdout } = await promisify(execFile)("zsh", ["-f", "-c", drive.join("\n")], options);
    return [...stdout.matchAll(/<<(.*)>>/g)].map(([, buffer = ""]) => buffer.trimEnd().split(" ").at(-1) ?? "");
  },
  async fish(lines, cwd) {
    const asks = lines.map((line) => `complete -C ${quoted(line)}; echo`);
    const options = { cwd, timeout: shellTimeoutMs };
    const words = ["--no-config", "-c", `source ./completion; ${asks.join("; ")}`];
    const { stdout } = await promisify(execFile)("fish", words, options);
    // Offers of a line are lines, each with its description after a tab; an empty one follows them.
    return stdout.split("\n\n", lines.length).map((offers) => offers.replaceAll(/\t.*$/gm, ""));
  },
};

/** For a shell to answer on a machine with other work. */
const shellTimeoutMs = 60_000;

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

describe.each(Object.entries(engines))("in %s", (shell, complete) => {
  const isInstalled = spawnSync(shell, ["-c", "exit"]).error === undefined;

  it("every option of every command is named", async () => {
    const { stdout } = await run("/", ["completion", shell]);
    const flagged = (flag: string): string => (shell === "zsh" ? `'*${flag}[` : ` -l ${flag.slice(2)} `);
    for (const name of names) for (const flag of await flagsOf(name)) expect(stdout).toContain(flagged(flag));
  });

  if (!isInstalled) {
    it(`nothing was completed, since ${shell} is not installed here`, () => {
      expect(spawnSync(shell, ["-c", "exit"]).error).toMatchObject({ code: "ENOENT" });
    });
    return;
  }

  it("commands, options, what they can be, and files are completed", { timeout: 120_000 }, async () => {
    const folder = await temporaryFolder();
    const { stdout: script } = await run("/", ["completion", shell]);
    await writeFile(join(folder, "completion"), script);
    await writeFile(join(folder, "corpus.txt"), "");
    await mkdir(join(folder, "my-model"));
    const lines = completed.map(([line]) => line);
    expect(await complete(lines, folder)).toEqual(completed.map(([, last]) => last));
  });
});

it("names the shells that it knows", async () => {
  expect(shells).toEqual(["bash", "zsh", "fish"]);
  const { code, error } = await run("/", ["completion", "csh"]);
  expect(error).toContain("Allowed choices are bash, zsh, fish");
  expect(code).toBe(2);
});
