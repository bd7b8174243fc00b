// The program: commands, and how each end of them becomes an exit code and at most one line of error.
import { ConfigError } from "@sisa/core";
import { nearestPath } from "@sisa/train";
import { Command, CommanderError } from "commander";
import manifest from "../package.json" with { type: "json" };
import { completionCommand } from "./commands/completion.ts";
import { demoCommand } from "./commands/demo.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { evalCommand } from "./commands/eval.ts";
import { experimentCommand } from "./commands/experiment.ts";
import { exportCommand } from "./commands/export.ts";
import { generateCommand } from "./commands/generate.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { prepareCommand } from "./commands/prepare.ts";
import { serveCommand } from "./commands/serve.ts";
import { trainCommand } from "./commands/train.ts";
import { verifyCommand } from "./commands/verify.ts";
import type { Context } from "./context.ts";
import { errorLine, exitCode, exitCodeOf, exitCodeTexts } from "./exit-codes.ts";
import { type Io, note, paint, printLine, wantsColor } from "./io.ts";

/** In the order in which they are shown. */
const commands = [
  prepareCommand,
  trainCommand,
  evalCommand,
  experimentCommand,
  generateCommand,
  inspectCommand,
  verifyCommand,
  exportCommand,
  serveCommand,
  doctorCommand,
  demoCommand,
  completionCommand,
];

const examples = [
  "sisa demo",
  "sisa train --data.text corpus/ --model.preset sisa --model.size 5m --steps 500",
  'sisa generate runs/latest "Once upon a time"',
  "sisa help train",
];

/** What stands under the list of commands. */
function epilogue(): string {
  return [
    "",
    "Every command has --help with examples. --json, where a command has it, puts one JSON document on the standard",
    "output and nothing else; progress and errors go to the standard error. NO_COLOR switches colours off.",
    "",
    "Examples:",
    ...examples.map((example) => `  $ ${example}`),
    "",
    exitCodeHelp(),
  ].join("\n");
}

function exitCodeHelp(): string {
  const codes = [...exitCodeTexts].map(([code, text]) => `  ${String(code).padEnd(4)} ${text}`);
  return ["Exit codes:", ...codes].join("\n");
}

/**
 * Runs the program.
 * @param words the command line after the program's name
 * @returns the exit code
 */
export async function main(words: readonly string[], io: Io): Promise<number> {
  let code: number = exitCode.ok;
  const program = createProgram({
    io,
    words,
    finish: (value) => {
      code = value;
    },
  });
  try {
    await program.parseAsync([...words], { from: "user" });
    return code;
  } catch (error) {
    // The parser has told already what is wrong; help and version end with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCode.ok : exitCode.usage;
    note(io, `${paint(io, io.stderr, "red", "error:")} ${errorLine(error)}`);
    if (program.opts<{ debug?: boolean }>().debug) note(io, stackOf(error));
    return exitCodeOf(error);
  }
}

function createProgram(context: Context): Command {
  const { io } = context;
  const program = new Command("sisa")
    .description("Train, evaluate, run and inspect SISA language models.")
    .version(manifest.version)
    .option("--debug", "show where an error comes from")
    .helpCommand(false)
    .addHelpText("after", epilogue());
  for (const create of commands) program.addCommand(create(context));
  program.addCommand(helpCommand(program, io));
  for (const each of [program, ...program.commands]) {
    each.exitOverride().configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      getOutHasColors: () => wantsColor(io, io.stdout),
      getErrHasColors: () => wantsColor(io, io.stderr),
      getOutHelpWidth: () => io.stdout.columns ?? 100,
      getErrHelpWidth: () => io.stderr.columns ?? 100,
      // One line, like every other error.
      outputError: (text, write) => {
        const line = text.trim().replaceAll(/\s*\n\s*/g, " ");
        const call = each === program ? "sisa --help" : `sisa ${each.name()} --help`;
        const hint = line.includes("Did you mean") ? "" : line.endsWith(".") ? ` See ${call}` : `; see ${call}`;
        write(`${line}${hint}\n`);
      },
    });
  }
  return program;
}

/** `sisa help train` shows what `sisa train --help` does. */
function helpCommand(program: Command, io: Io): Command {
  return new Command("help")
    .description("show a command with its options and examples, or the exit codes")
    .argument("[topic]", "a command, or exit-codes")
    .action((topic?: string) => {
      if (topic === undefined) return program.outputHelp();
      if (topic === "exit-codes") return printLine(io, exitCodeHelp());
      const found = program.commands.find((one) => one.name() === topic);
      if (found !== undefined) return found.outputHelp();
      const names = [...program.commands.map((one) => one.name()), "exit-codes"];
      const nearest = nearestPath(topic, names);
      throw new ConfigError(
        `help: expected one of ${names.join(", ")}, got "${topic}"${nearest ? `; did you mean "${nearest}"?` : ""}`,
      );
    });
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by ${stackOf(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}
