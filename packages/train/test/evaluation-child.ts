// A process that evaluates a task with a log, one short row a batch: to be killed and started again.
import { reference } from "@sisa/core";
import { evaluate } from "../src/evaluation/evaluate.ts";
import { parity } from "../src/evaluation/synthetic-tasks.ts";
import { evaluationLog } from "../src/node/evaluation-log.ts";
import { echoScorer } from "./echo-model.ts";

const [path = ""] = process.argv.slice(2);
const backend = reference();
const scorer = echoScorer(backend, {}, 8);
const result = await evaluate(parity({ length: 8, vocabularySize: 258, items: 40 }), scorer, {
  log: evaluationLog(path),
  modelFingerprint: "echo",
  onProgress: (done) => void process.stdout.write(`${done}\n`),
});
process.stdout.write(`${JSON.stringify(result)}\n`);
