// The program that the README prints, as it is, on a small text.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { loadModel } from "@sisa/hub/node";
import { onnxruntime } from "@sisa/onnx";
import { train } from "@sisa/train";
import { metricsFile, readMetrics, textFiles } from "@sisa/train/node";
import { expect, it } from "vitest";

it("trains on a folder, samples, saves, and can be loaded again", async () => {
  const folder = mkdtempSync(join(tmpdir(), "sisa-usage-"));
  try {
    writeFileSync(join(folder, "corpus.txt"), "Once upon a time there was a small model. ".repeat(100));

    await using backend = await onnxruntime();
    const tokenizer = byteTokenizer();
    const model = languageModel(preset("sisa", "1m", { vocabularySize: tokenizer.size }));
    const run = await train({
      model,
      backend,
      data: textFiles(join(folder, "corpus.txt"), tokenizer),
      steps: 6,
      sequenceLength: 64,
      microBatchSize: 4,
      checkpoints: join(folder, "run"),
      metrics: metricsFile(join(folder, "run", "metrics.jsonl")),
    });
    expect(run.heldOutLoss).toBeLessThan(Math.log(257));
    expect(typeof (await run.sample("Once upon", { maxTokens: 5 }))).toBe("string");
    await run.save(join(folder, "my-model"));

    const loaded = await loadModel(join(folder, "my-model"));
    expect(loaded.parameters).toEqual(run.parameters);
    const latest = await loadModel(join(folder, "run", "latest"));
    expect(latest.parameters).toEqual(run.parameters);
    expect(readMetrics(join(folder, "run", "metrics.jsonl"))).toEqual(run.records);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
