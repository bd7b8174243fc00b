// Helpers of this package's own tests. No entry exports it.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type { Io, Signal } from "./io.ts";
import { main } from "./main.ts";

const folders: string[] = [];

/** A fresh folder that is removed after the test file has run. */
export async function temporaryFolder(): Promise<string> {
  if (folders.length === 0) {
    afterAll(async () => {
      for (const folder of folders) await rm(folder, { recursive: true, force: true });
    });
  }
  const folder = await mkdtemp(join(tmpdir(), "sisa-cli-"));
  folders.push(folder);
  return folder;
}

export interface TestOptions {
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Called with each piece of progress; `interrupt` is Ctrl-C. */
  readonly onProgress?: (text: string, interrupt: (signal: Signal) => void) => void;
  /** The same for each piece of the result. */
  readonly onOutput?: (text: string, interrupt: (signal: Signal) => void) => void;
}

export interface TestIo extends Io {
  readonly written: { stdout: string; stderr: string };
}

/** A program's surroundings that keep what is written. */
export function testIo(cwd: string, options: TestOptions = {}): TestIo {
  const written = { stdout: "", stderr: "" };
  let handler: (signal: Signal) => void = () => {};
  return {
    written,
    cwd,
    env: options.env ?? {},
    stdout: {
      write: (text) => {
        written.stdout += text;
        options.onOutput?.(text, (signal) => handler(signal));
      },
    },
    stderr: {
      write: (text) => {
        written.stderr += text;
        options.onProgress?.(text, (signal) => handler(signal));
      },
    },
    readStdin: async () => options.stdin,
    onSignal(stop) {
      handler = stop;
      return () => {
        handler = () => {};
      };
    },
  };
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The last line of the output as JSON; undefined where it is none. With `--json` there is no other line. */
  readonly json: Record<string, unknown> | undefined;
  /** The one line of error, without "error: "; undefined where there is none. */
  readonly error: string | undefined;
}

/** Runs the program in this process. */
export async function run(cwd: string, words: readonly string[], options: TestOptions = {}): Promise<Outcome> {
  const io = testIo(cwd, options);
  const code = await main(words, io);
  const result = outcome(code, io.written);
  const { stdout } = result;
  if (words.includes("--json") && stdout !== "" && (result.json === undefined || stdout.trimEnd().includes("\n"))) {
    throw new Error(`expected one JSON document on the standard output, got:\n${stdout}`);
  }
  return result;
}

export function outcome(code: number, { stdout, stderr }: { stdout: string; stderr: string }): Outcome {
  const errors = stderr.split("\n").filter((line) => line.startsWith("error: "));
  if (errors.length > 1) throw new Error(`expected at most one line of error, got:\n${stderr}`);
  if (/^\s+at /m.test(stderr)) throw new Error(`expected no stack, got:\n${stderr}`);
  return { code, stdout, stderr, json: lastJson(stdout), error: errors[0]?.slice("error: ".length) };
}

function lastJson(text: string): Record<string, unknown> | undefined {
  const line = text.trimEnd().split("\n").at(-1) ?? "";
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** A model and settings so small that a step takes milliseconds. */
export const tinyConfig = {
  model: {
    preset: "sisa",
    size: "1m",
    layers: 2,
    width: 8,
    heads: 2,
    stateWidth: 2,
    feedForwardWidth: 12,
    vocabularySize: 257,
    maximumLength: 64,
  },
  data: { text: "corpus.txt", sequenceLength: 16, heldOutFraction: 0.1 },
  microBatchSize: 2,
  steps: 6,
  saveEvery: 2,
};

export const tinyText = "Once upon a time there was a small model that learned to count: one, two, three.\n".repeat(20);
