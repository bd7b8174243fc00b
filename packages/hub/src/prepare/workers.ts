// Threads that do tasks side by side. Each has one task at a time; the others wait in order.

import { Worker } from "node:worker_threads";
import { DataError } from "@sisa/core";
import type { Task, TaskResult, TaskSettings } from "./task.ts";
import { taskTokenizer } from "./tokenize-task.ts";
import type { WorkerAnswer } from "./worker.ts";

/** Does tasks, in this thread or in others. */
export interface TaskRunner {
  run(task: Task): Promise<TaskResult>;
  close(): Promise<void>;
}

/** The built worker lies beside the built entry. Sources have none: Node 20 does not run TypeScript. */
export const builtWorker: URL | undefined = import.meta.url.endsWith(".ts")
  ? undefined
  : new URL("./prepare-worker.js", import.meta.url);

export function runInThisThread(settings: TaskSettings): TaskRunner {
  return { run: taskTokenizer(settings), close: async () => {} };
}

interface Waiting {
  readonly task: Task;
  readonly resolve: (result: TaskResult) => void;
  readonly reject: (reason: unknown) => void;
}

/** Runs tasks in `count` threads of the program at `url`. */
export function runInThreads(settings: TaskSettings, count: number, url: URL): TaskRunner {
  const waiting: Waiting[] = [];
  const idle: Worker[] = [];
  const busy = new Map<Worker, Waiting>();
  let failure: Error | undefined;

  const assign = (): void => {
    for (let worker = idle.pop(); worker !== undefined; worker = idle.pop()) {
      const next = waiting.shift();
      if (next === undefined) {
        idle.push(worker);
        return;
      }
      busy.set(worker, next);
      worker.postMessage(next.task, next.task.kind === "rows" ? [] : [next.task.bytes.buffer]);
    }
  };
  const answer = (worker: Worker, message: WorkerAnswer): void => {
    const done = busy.get(worker);
    busy.delete(worker);
    idle.push(worker);
    if ("result" in message) done?.resolve(message.result);
    else done?.reject(message.isDataError ? new DataError(message.problem) : new Error(message.problem));
    assign();
  };
  // A thread that dies takes the preparation with it: its task, and all that wait.
  const fail = (error: Error): void => {
    failure ??= error;
    for (const { reject } of [...busy.values(), ...waiting.splice(0)]) reject(failure);
    busy.clear();
  };

  const workers = Array.from({ length: count }, () => {
    const worker = new Worker(url, { workerData: settings });
    worker.on("message", (message: WorkerAnswer) => answer(worker, message));
    worker.on("error", fail);
    worker.on("exit", (code) => fail(new Error(`a worker thread ended with code ${code}`)));
    idle.push(worker);
    return worker;
  });
  return {
    run: (task) =>
      new Promise((resolve, reject) => {
        if (failure !== undefined) return reject(failure);
        waiting.push({ task, resolve, reject });
        return assign();
      }),
    async close() {
      for (const worker of workers) worker.removeAllListeners("exit");
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
}
