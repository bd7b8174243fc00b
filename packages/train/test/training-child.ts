// A process that trains the tiny model in a folder, as the command-line program does: to be killed and started again.
import { reference } from "@sisa/core";
import { metricsFile } from "../src/node.ts";
import { train } from "../src/train.ts";
import { tinyData, tinyModel, tinySettings } from "./tiny.ts";

const [folder = "", steps = "0"] = process.argv.slice(2);
const controller = new AbortController();
process.once("SIGINT", () => controller.abort());

const run = await train({
  model: tinyModel(),
  backend: reference(),
  data: tinyData(),
  ...tinySettings,
  steps: Number(steps),
  saveEvery: 1,
  keepCheckpoints: 2,
  evaluateEvery: -1,
  checkpoints: folder,
  resume: "auto",
  signal: controller.signal,
  metrics: [
    metricsFile(`${folder}/metrics.jsonl`),
    { start: () => void process.stdout.write("training\n"), write() {} },
  ],
});
process.stdout.write(run.stopped ? "stopped\n" : "finished\n");
