// The program of one worker thread: does the tasks it is sent, and sends back ids or the reason why there are none.

import { parentPort, workerData } from "node:worker_threads";
import { DataError } from "@sisa/core";
import type { Task, TaskResult, TaskSettings } from "./task.ts";
import { taskTokenizer } from "./tokenize-task.ts";

/** An error loses its class on the way between threads. */
export type WorkerAnswer =
  | { readonly result: TaskResult }
  | { readonly problem: string; readonly isDataError: boolean };

const run = taskTokenizer(workerData as TaskSettings);

parentPort?.on("message", async (task: Task) => {
  try {
    const result = await run(task);
    const { train, heldOut } = result.splits;
    parentPort?.postMessage({ result } satisfies WorkerAnswer, [train.ids.buffer, heldOut.ids.buffer]);
  } catch (error) {
    const isDataError = DataError.isInstance(error);
    const problem =
      error instanceof Error ? (isDataError ? error.message : (error.stack ?? error.message)) : String(error);
    parentPort?.postMessage({ problem, isDataError } satisfies WorkerAnswer);
  }
});
