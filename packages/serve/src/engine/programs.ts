// Programs that are compiled when they are first needed.

import type { Executable, GraphInputs, GraphOutputs } from "@sisa/core";

export type Program = Executable<GraphInputs, GraphOutputs>;

export class Programs {
  readonly #programs = new Map<string, Promise<Program>>();

  /** The program of a name. One that could not be compiled is tried again the next time. */
  get(name: string, compile: () => Promise<Program>): Promise<Program> {
    const known = this.#programs.get(name);
    if (known) return known;
    const compiled = compile();
    this.#programs.set(name, compiled);
    compiled.catch(() => this.#programs.delete(name));
    return compiled;
  }

  async close(): Promise<void> {
    for (const program of this.#programs.values()) (await program).close();
  }
}
