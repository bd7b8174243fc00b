// What operations find wrong with their inputs while they run, such as an id outside a table. Kernels note it in a
// buffer; reading a result that depends on the run looks there.

import { DataError } from "@sisa/core";

/** Words of the status buffer for each check: whether it failed, and the value that it did not like. */
export const wordsPerCheck = 2;

/** Something that a kernel checks. `message` gets the value that was refused. */
export interface Check {
  /** The message of the DataError, from the value. */
  readonly message: (value: number) => string;
}

/** The outcome of the checks of one run, or of several runs where each works on the state of the one before. */
export class RunStatus {
  readonly buffer: GPUBuffer;
  readonly checks: readonly Check[];

  constructor(buffer: GPUBuffer, checks: readonly Check[]) {
    this.buffer = buffer;
    this.checks = checks;
  }

  get bytes(): number {
    return this.checks.length * wordsPerCheck * 4;
  }

  /** @throws DataError for the first check that failed */
  inspect(words: Int32Array): void {
    this.checks.forEach(({ message }, index) => {
      if (words[index * wordsPerCheck]) throw new DataError(message(words[index * wordsPerCheck + 1] ?? 0));
    });
  }
}
