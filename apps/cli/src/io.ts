// What the program sees of the world: streams, folder, environment, signals. Tests pass their own.
import { once } from "node:events";
import { styleText } from "node:util";
import { exitCode } from "./exit-codes.ts";

/** Where text goes. Streams of Node fit. */
export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export type Signal = "SIGINT" | "SIGTERM";

export interface Io {
  /** Results. */
  readonly stdout: Output;
  /** Progress, notices and errors. */
  readonly stderr: Output;
  /** All of the standard input; undefined where it is a terminal, on which nobody types yet. */
  readStdin(): Promise<string | undefined>;
  /** Folder that relative paths start from. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The command line that starts this program once more; undefined where there is none, as in tests. */
  readonly program?: readonly string[];
  /**
   * Calls `stop` for the first Ctrl-C or SIGTERM. Without a handler, and at the second signal, the program ends at once.
   * @returns takes the handler back
   */
  onSignal(stop: (signal: Signal) => void): () => void;
}

/** The real one. */
export function nodeIo(): Io {
  // A reader that has seen enough, such as `head`, is no failure.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(exitCode.ok);
      throw error;
    });
  }
  // Started by another of its kind, it ends with it: nobody else waits for the result.
  if (process.connected) {
    process.on("disconnect", () => process.exit(exitCode.failed));
    process.channel?.unref();
  }
  return {
    program: [process.execPath, ...process.execArgv, ...process.argv.slice(1, 2)],
    stdout: process.stdout,
    stderr: process.stderr,
    cwd: process.cwd(),
    env: process.env,
    async readStdin() {
      if (process.stdin.isTTY) return undefined;
      process.stdin.setEncoding("utf8");
      let text = "";
      process.stdin.on("data", (part: string) => {
        text += part;
      });
      await once(process.stdin, "end");
      return text;
    },
    onSignal(stop) {
      let stopping = false;
      const handlers = (["SIGINT", "SIGTERM"] as const).map((signal) => {
        const handler = (): void => {
          if (stopping) process.exit(signal === "SIGINT" ? exitCode.interrupted : exitCode.terminated);
          stopping = true;
          stop(signal);
        };
        process.on(signal, handler);
        return () => process.off(signal, handler);
      });
      return () => {
        for (const remove of handlers) remove();
      };
    },
  };
}

/** Whether to colour what goes to an output: only on terminals, and not where NO_COLOR is set (no-color.org). */
export function wantsColor(io: Io, output: Output): boolean {
  return output.isTTY === true && !io.env.NO_COLOR && io.env.TERM !== "dumb";
}

/** Text in a colour where the output shows colours. */
export function paint(
  io: Io,
  output: Output,
  format: "bold" | "dim" | "red" | "green" | "yellow",
  text: string,
): string {
  return wantsColor(io, output) ? styleText(format, text, { validateStream: false }) : text;
}

/** A line on the output for results. */
export function printLine(io: Io, line: string): void {
  io.stdout.write(`${line}\n`);
}

/** The result as one JSON document on a line: with --json, the only thing on the standard output. */
export function printJson(io: Io, result: object): void {
  printLine(io, JSON.stringify(result));
}

/** The same surroundings without results for people, where `json` asks for one JSON document in their place. */
export function forPeople(io: Io, json: boolean | undefined): Io {
  return json ? { ...io, stdout: { write: () => {} } } : io;
}

/** A line about what is going on, which is not a result. */
export function note(io: Io, line: string): void {
  io.stderr.write(`${line}\n`);
}
