// The server as people start it: from the shell, until a signal.
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { initialize, languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { saveModel } from "@sisa/hub/node";
import { beforeAll, expect, it } from "vitest";
import type { Signal } from "../io.ts";
import { run, temporaryFolder, tinyConfig } from "../testing.ts";

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const { preset: family, size, ...overrides } = tinyConfig.model;
  const { layers, ...rest } = overrides;
  const config = preset(family as "sisa", size as "1m", { layers, ...rest });
  const parameters = initialize(languageModel(config), 1);
  await saveModel(join(folder, "my-model"), { config, parameters, tokenizer: byteTokenizer() });
});

/** Starts the command, calls `visit` with where the server is, and then sends the signal. */
async function served(
  words: readonly string[],
  visit: (url: string, stop: (signal: Signal) => void) => Promise<void>,
  env: Record<string, string> = {},
) {
  let visited: Promise<void> | undefined;
  let text = "";
  const outcome = await run(folder, ["serve", "my-model", "--port", "0", ...words], {
    env,
    onOutput: (part, interrupt) => {
      text += part;
      const url = /serving .* at (\S+)\n/.exec(text)?.[1];
      if (url === undefined) return;
      visited = visit(url, interrupt).finally(() => interrupt("SIGTERM"));
    },
  });
  await visited;
  return outcome;
}

const post = (url: string, body: object, headers: Record<string, string> = {}) =>
  fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });

it("serves until SIGTERM, finishes what was begun and exits with 0", async () => {
  let pending: Promise<Response> | undefined;
  const { code, stderr } = await served(["--slots", "1"], async (url, stop) => {
    expect((await fetch(`${url}/ready`)).status).toBe(200);
    const models = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
    expect(models.data[0]?.id).toBe("my-model");
    pending = post(url, { model: "my-model", prompt: "Once", max_tokens: 60, ignore_eos: true });
    await expect
      .poll(async () => await (await fetch(`${url}/metrics`)).text())
      .toContain("sisa:num_requests_running 1");
    stop("SIGTERM");
  });
  const answer = (await (await pending)?.json()) as { usage: { completion_tokens: number } };
  expect(answer.usage.completion_tokens).toBe(60);
  expect(code).toBe(0);
  expect(stderr).toMatch(/GET \/v1\/models 200 \d+ ms/);
  expect(stderr).toContain("SIGTERM: taking no more requests");
});

it("takes its key from the environment, and a template from a file", async () => {
  await writeFile(join(folder, "chat.jinja"), "{{ messages[0].content }}");
  const key = "sk-secret";
  const { code, stderr, stdout } = await served(
    ["--chat-template", "chat.jinja", "--name", "other", "--context", "40"],
    async (url) => {
      expect((await fetch(`${url}/v1/models`)).status).toBe(401);
      const headers = { authorization: `Bearer ${key}` };
      expect((await post(url, { model: "other", prompt: "x", max_tokens: 1 }, headers)).status).toBe(200);
      const info = (await (await fetch(`${url}/tokenizer_info`, { headers })).json()) as { chat_template: string };
      expect(info.chat_template).toBe("{{ messages[0].content }}");
    },
    { SISA_API_KEY: key },
  );
  expect(code).toBe(0);
  expect(stderr + stdout).not.toContain(key);
});

it("knows the options that the image and the manifests start it with", async () => {
  const { stdout } = await run(folder, ["serve", "--help"]);
  for (const file of ["Dockerfile", "kubernetes.yaml"]) {
    const text = await readFile(new URL(`../../../../deploy/${file}`, import.meta.url), "utf8");
    const words: string[] = JSON.parse(/(?:args:|^CMD) (\["serve".*\])$/m.exec(text)?.[1] ?? "[]");
    const flags = words.filter((word) => word.startsWith("--"));
    expect(flags).toContain("--host");
    for (const flag of flags) expect(stdout).toContain(`${flag} <`);
  }
});

it.each<[string, string[], string, number]>([
  ["a port that is none", ["--port", "70000"], "Expected a whole number >= 0 and <= 65535", 2],
  ["no slots", ["--slots", "0"], "Expected a whole number >= 1", 2],
  ["a context longer than the model's", ["--context", "65"], "the model's maximumLength 64, got 65", 2],
  ["a template that is not there", ["--chat-template", "none.jinja"], "none.jinja: cannot be read", 3],
])("refuses %s", async (_name, words, message, code) => {
  const outcome = await run(folder, ["serve", "my-model", "--port", "0", ...words]);
  expect(outcome.code).toBe(code);
  expect(outcome.error).toContain(message);
});

it("says that a port is taken", async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const address = other.address();
  const port = typeof address === "object" ? address?.port : 0;
  const outcome = await run(folder, ["serve", "my-model", "--port", String(port)]);
  other.close();
  expect(outcome).toMatchObject({ code: 1, error: expect.stringContaining("EADDRINUSE") });
});
