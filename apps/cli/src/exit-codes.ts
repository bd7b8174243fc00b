// What the program's exit code says, and which error leads to which.
import { CheckpointError, ConfigError, DataError, SisaError } from "@sisa/core";
import { StorageError } from "@sisa/hub";

export const exitCode = {
  /** Done. */
  ok: 0,
  /** A check that failed, or a failure while running: no backend, a full disk, a device error. */
  failed: 1,
  /** The command line or the configuration is wrong. */
  usage: 2,
  /** A file of a model, of a run or of data is missing, damaged, or does not fit. */
  badInput: 3,
  /** Ended by Ctrl-C, as shells count it: 128 + SIGINT. What could be saved is saved. */
  interrupted: 130,
  /** Ended by SIGTERM: 128 + SIGTERM. */
  terminated: 143,
} as const;

/** What each code says, for help and documentation. */
export const exitCodeTexts: ReadonlyMap<number, string> = new Map([
  [exitCode.ok, "done"],
  [exitCode.failed, "a check failed, or something failed while running (no backend, disk full)"],
  [exitCode.usage, "the command line or the configuration is wrong"],
  [exitCode.badInput, "a file of a model, of a run or of data is missing, damaged or does not fit"],
  [exitCode.interrupted, "ended by Ctrl-C, after saving what could be saved"],
  [exitCode.terminated, "ended by SIGTERM, in the same way"],
]);

/** The end of a program by a signal, after what could be saved was saved. */
export class InterruptedError extends SisaError {
  static override readonly code: string = "INTERRUPTED";
  readonly signal: "SIGINT" | "SIGTERM";

  constructor(signal: "SIGINT" | "SIGTERM", message: string) {
    super(message);
    this.signal = signal;
  }
}

export function exitCodeOf(error: unknown): number {
  if (InterruptedError.isInstance(error)) {
    return error.signal === "SIGINT" ? exitCode.interrupted : exitCode.terminated;
  }
  if (ConfigError.isInstance(error)) return exitCode.usage;
  if (CheckpointError.isInstance(error) || DataError.isInstance(error)) return exitCode.badInput;
  if (StorageError.isInstance(error)) return error.reason === "missing" ? exitCode.badInput : exitCode.failed;
  return exitCode.failed;
}

/**
 * What went wrong, in one line.
 * Errors of this project are written for users; of others the class is told as well.
 */
export function errorLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = text
    .split("\n")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .join(" ");
  if (SisaError.isInstance(error) || isSystemError(error)) return line;
  const name = error instanceof Error ? error.name : "Error";
  return `unexpected ${name}: ${line} (--debug shows where)`;
}

/** Errors of files and sockets, whose messages name the file and the reason. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}
