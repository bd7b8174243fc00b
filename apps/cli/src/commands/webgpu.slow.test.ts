// A model that is used on WebGPU, over SwiftShader: trained, read, and served.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { useTestGpu } from "@sisa/browser-testing/node";
import { beforeAll, expect, it, vi } from "vitest";
import { run, temporaryFolder, tinyConfig, tinyText } from "../testing.ts";

// A software GPU compiles for seconds, and for minutes where other work has the processor.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 600_000 });

const model = "runs/tiny";
const config = { ...tinyConfig, model: { ...tinyConfig.model, layers: 1, maximumLength: 32 }, steps: 4 };
let folder: string;
beforeAll(async () => {
  await useTestGpu();
  folder = await temporaryFolder();
  await writeFile(join(folder, "corpus.txt"), tinyText);
  await writeFile(join(folder, "tiny.config.json"), JSON.stringify(config));
  expect((await run(folder, ["train", "tiny.config.json"])).code).toBe(0);
});

/** The result of a command on both backends. */
async function both(...words: readonly string[]) {
  const [own, plain] = [
    await run(folder, [...words, "--backend", "webgpu", "--json"]),
    await run(folder, [...words, "--backend", "reference", "--json"]),
  ];
  expect([own.code, own.error]).toEqual([0, plain.error]);
  return [own.json, plain.json] as const;
}

it("generates the text that the reference does", async () => {
  const [own, plain] = await both("generate", model, "Once", "--max-tokens", "8", "--seed", "3", "--top-k", "50");
  expect(own?.text).toBe(plain?.text);
});

it("measures the loss that the reference does", async () => {
  const [own, plain] = await both("eval", model, "--text", "corpus.txt");
  expect(own).toEqual(plain);
});

it("serves the text that the reference does, chosen on the device, and by logits where a client asks for them", async () => {
  const answers: unknown[] = [];
  for (const backend of ["webgpu", "reference"]) {
    let visited: Promise<void> | undefined;
    let text = "";
    const words = ["serve", model, "--port", "0", "--slots", "1", "--backend", backend];
    const { code } = await run(folder, words, {
      onOutput: (part, interrupt) => {
        text += part;
        const url = /serving .* at (\S+)\n/.exec(text)?.[1];
        if (url !== undefined) visited ??= visit(url, backend).finally(() => interrupt("SIGTERM"));
      },
    });
    await visited;
    expect(code).toBe(0);
  }
  async function visit(url: string, backend: string) {
    const ask = async (change: object) => {
      const body = { model: "tiny", prompt: "Once", max_tokens: 6, seed: 4, top_p: 0.9, ...change };
      const headers = { "content-type": "application/json" };
      const response = await fetch(`${url}/v1/completions`, { method: "POST", headers, body: JSON.stringify(body) });
      const { choices } = (await response.json()) as { choices?: { text: string }[] };
      return choices?.map(({ text }) => text);
    };
    const together = await Promise.all([ask({}), ask({ prompt: "two", logprobs: 1 })]);
    answers.push(together);
    // Alone as in company, whatever that asks for.
    expect(await ask({}), backend).toEqual(together[0]);
  }
  expect(answers[0]).toEqual(answers[1]);
  expect(JSON.stringify(answers)).not.toContain("null");
});
