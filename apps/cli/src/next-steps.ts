// Commands that are shown to be tried: they must work as they are printed, from the folder where the user is.
import { isAbsolute, relative } from "node:path";
import { type Io, paint, printLine } from "./io.ts";

/** How this program was called: through npm in the workspace, through npx, or by its name. */
export function callOf(io: Io): string {
  const { npm_lifecycle_event: script, npm_command: npmCommand } = io.env;
  if (script === "sisa" || script === "demo") return "npm run sisa --";
  return npmCommand === "exec" ? "npx @sisa/cli" : "sisa";
}

/** A word as a shell takes it. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A path from where the user is, if that is shorter. */
export function shownPath(io: Io, path: string): string {
  const near = relative(io.cwd, path) || ".";
  return isAbsolute(near) || near.length >= path.length ? path : near;
}

/** Prints commands under a heading, with what each does. */
export function printNextSteps(io: Io, steps: readonly (readonly [words: string, purpose: string])[]): void {
  const call = callOf(io);
  printLine(io, "");
  printLine(io, "To try next:");
  const lines = steps.map(([words, purpose]) => [`  ${call} ${words}`, purpose] as const);
  const width = Math.max(...lines.map(([line]) => line.length));
  for (const [line, purpose] of lines) {
    printLine(io, `${line.padEnd(width)}  ${paint(io, io.stdout, "dim", `# ${purpose}`)}`);
  }
}
