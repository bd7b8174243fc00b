// Programs that the release tests start.
import { execFile } from "node:child_process";
import { promisify } from "node:util";

export interface Ran {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end, without a shell.
 * @throws Error with all that it said, where it fails
 */
export async function run(
  program: string,
  words: readonly string[],
  options: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> },
): Promise<Ran> {
  const env = { ...process.env, ...options.env };
  try {
    return await promisify(execFile)(program, [...words], { cwd: options.cwd, env, maxBuffer: 2 ** 26 });
  } catch (error) {
    const { stdout = "", stderr = "" } = error as Partial<Ran>;
    throw new Error(`${[program, ...words].join(" ")} failed:\n${stdout}${stderr}`, { cause: error });
  }
}
