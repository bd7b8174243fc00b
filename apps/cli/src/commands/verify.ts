// sisa verify: a golden file against this implementation.
import { basename, dirname, resolve } from "node:path";
import type { SisaForm } from "@sisa/core";
import { openSafetensors } from "@sisa/hub";
import { directory } from "@sisa/hub/node";
import { type Command, Option } from "commander";
import { type BackendOptions, openBackend } from "../backends.ts";
import { backendOption, type Context, command, jsonOption, threadsOption } from "../context.ts";
import { exitCode } from "../exit-codes.ts";
import { forPeople, note, paint, printJson, printLine } from "../io.ts";
import { textTable } from "../table.ts";
import { verifyGolden } from "../verify.ts";

interface Options extends BackendOptions {
  readonly form: SisaForm;
  readonly json?: boolean;
}

export function verifyCommand({ io, finish }: Context): Command {
  return command("verify", "compare with a golden file; the last line of the output is one JSON document", [
    "sisa verify fixtures/sisa-tiny-a.safetensors",
    "sisa verify fixtures/sisa-train-10-steps.safetensors --backend reference",
    "sisa verify fixtures/sisa-tiny-clamped.safetensors --form sdpa",
  ])
    .argument("<file>", "safetensors file with weights and what other code computed from them")
    .addOption(backendOption())
    .addOption(threadsOption())
    .addOption(
      new Option("--form <form>", "form of SISA: exact, or the paper's with its clamp")
        .choices(["exact", "sdpa"])
        .default("exact"),
    )
    .addOption(jsonOption())
    .action(async (file: string, options: Options) => {
      const path = resolve(io.cwd, file);
      await using golden = await openSafetensors(directory(dirname(path)), basename(path));
      await using backend = await openBackend(options);
      const { kind, figures, broken } = await verifyGolden(golden, { backend, form: options.form });
      const passed = broken.length === 0;
      for (const sentence of broken) note(io, `${paint(io, io.stderr, "red", "broken:")} ${sentence}`);
      if (!passed && kind === "sisa" && options.form === "exact") {
        note(io, "Where the paper's clamp is active, only --form sdpa reproduces its numbers.");
      }
      const { backend: backendName, form } = options;
      const shown = forPeople(io, options.json);
      for (const line of textTable(Object.entries(figures).map(([name, value]) => [name, figureText(value)]))) {
        printLine(shown, line);
      }
      printLine(shown, passed ? paint(shown, shown.stdout, "green", "reproduced") : "not reproduced");
      printJson(io, { file, kind, backend: backendName, form, passed, ...figures });
      if (!passed) finish(exitCode.failed);
    });
}

/** Counts and names as they are, differences in two digits. */
function figureText(value: number | string): string {
  return typeof value === "string" || Number.isInteger(value) ? String(value) : value.toExponential(1);
}
