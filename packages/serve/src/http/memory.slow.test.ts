// Ten thousand requests, of all kinds and ends, leave as much memory in use as there was.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { startServer } from "../../test/server.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

async function settled(): Promise<number> {
  for (let round = 0; round < 4; round++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    collect();
  }
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

test("memory returns to where it was after 10,000 requests, aborted ones included", async () => {
  const server = await startServer(
    { slots: 12, contextLength: 64 },
    { mixers: ["sisa"], width: 8, feedForwardWidth: 8 },
  );
  let aborted = 0;
  const one = async (index: number): Promise<void> => {
    const controller = new AbortController();
    const stream = index % 3 === 0;
    const body = {
      prompt: `${index % 97} more`,
      max_tokens: index % 16 === 3 ? 40 : 1,
      stream,
      seed: index,
      logprobs: index % 8 === 0 ? 2 : null,
    };
    const bad = index % 10 === 9 ? { n: -1 } : {};
    if (index % 16 === 3) setTimeout(() => controller.abort(), 2 + (index % 5));
    try {
      const response = await fetch(`${server.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...body, ...bad }),
        signal: controller.signal,
      });
      await response.text();
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      aborted += 1;
    }
  };
  const many = async (first: number, count: number): Promise<void> => {
    let next = first;
    const worker = async () => {
      while (next < first + count) await one(next++);
    };
    await Promise.all(Array.from({ length: 12 }, worker));
  };

  await many(0, 1500);
  const before = await settled();
  await many(1500, 8500);
  await expect.poll(() => server.engine.counts).toMatchObject({ running: 0, waiting: 0, admitted: 0 });
  const after = await settled();
  expect(aborted).toBeGreaterThan(200);
  expect(after - before).toBeLessThan(8);
  // A minute of work, which takes as long as others leave it.
}, 1_200_000);
