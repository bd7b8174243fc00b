// The Python process that runs the PyTorch side of a comparison: one JSON object a line each way.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createInterface } from "node:readline";

/** Where the Python sources are: the bundle of a benchmark lies elsewhere, and runs in the root or in bench/. */
const script = new URL("../../../torch/worker.py", import.meta.url).pathname;

export const installTorch = [
  "PyTorch is the baseline of this benchmark and is not installed for this Python. Put it into an environment of its own:",
  "  python3 -m venv ~/torch && ~/torch/bin/pip install torch",
  "  npm run bench -- training-vs-torch --python ~/torch/bin/python",
].join("\n");

/** Whether a Python has PyTorch. */
export function hasTorch(python: string): boolean {
  return spawnSync(python, ["-c", "import torch"], { stdio: "ignore" }).status === 0;
}

export class TorchWorker {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(python: string) {
    this.#process = spawn(python, [script], { stdio: ["pipe", "pipe", "inherit"] });
    if (this.#process.stdout === null) throw new Error("torch worker: it has no standard output");
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** @throws Error where the process ends without an answer; what it says is on standard error by then */
  async ask<Answer>(request: object): Promise<Answer> {
    this.#process.stdin?.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("torch worker: it ended without an answer; its own message is above");
    return JSON.parse(value) as Answer;
  }

  close(): void {
    this.#process.stdin?.end();
  }
}
