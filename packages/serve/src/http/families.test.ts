// Every family of models, served or refused by name.
import { type Family, initialize, languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { onnxruntime } from "@sisa/onnx";
import { expect, test } from "vitest";
import { frames, post } from "../../test/server.ts";
import { serve } from "../node.ts";

/** What is said of those that are not served: their state stands for all tokens. */
const refusals: { readonly [F in Family]: string | undefined } = {
  sisa: undefined,
  transformer: undefined,
  nope: undefined,
  alibi: undefined,
  "wide-key": undefined,
  fox: undefined,
  "fox-pro": "layers of kind attention keep a state",
  mamba2: "layers of kind mamba2 keep a state",
  mamba3: "layers of kind mamba3 keep a state",
  jamba: "layers of kind mamba keep a state",
  "falcon-h1": "layers of kind mamba2 keep a state",
  hymba: "layers of kind mamba2 keep a state",
};
const all = Object.entries(refusals) as [Family, string | undefined][];
const served = all.filter(([, message]) => message === undefined);
const refused = all.filter(([, message]) => message !== undefined);

const tokenizer = byteTokenizer();
function loaded(family: Family, sizes: { readonly layers?: number; readonly width?: number; readonly heads?: number }) {
  const model = languageModel(preset(family, "1m", { vocabularySize: 272, maximumLength: 256, ...sizes }));
  const parameters = initialize(model, 5);
  // So that answers differ, and forget what came long before.
  for (const [name, values] of Object.entries(parameters)) {
    if (name.endsWith(".weight") && !name.includes("norm")) values.set(values.map((value) => value * 12));
  }
  return { model, parameters, tokenizer, generationConfig: {}, assets: {} };
}

test.each(served)("%s: streams, batches and single requests say the same", async (family) => {
  await using backend = await onnxruntime({ threads: 1 });
  await using server = await serve(loaded(family, { layers: 3, width: 16, heads: 4 }), { backend, port: 0, slots: 3 });
  const prompt = [
    "Once",
    "The ferry left before the fog had lifted, and some of its lamps were lit. ",
    "It was a br",
    "x",
  ];
  const request = { prompt, seed: 7, max_tokens: 20, ignore_eos: true };
  const textsOf = (json: { choices: { text: string }[] }) => json.choices.map(({ text }) => text);
  const batch = textsOf((await post(server, "/v1/completions", request)).json);
  const singles: string[] = [];
  for (const text of prompt) {
    singles.push(...textsOf((await post(server, "/v1/completions", { ...request, prompt: text })).json));
  }
  expect(batch).toEqual(singles);
  const streamed = prompt.map(() => "");
  for (const { choices } of await frames(server, "/v1/completions", request)) {
    for (const { index, text } of choices) streamed[index] += text;
  }
  expect(streamed).toEqual(singles);
  expect(new Set(singles).size).toBe(prompt.length);
});

test.each(refused)("%s is refused by name", async (family, message) => {
  await using backend = await onnxruntime({ threads: 1 });
  await expect(serve(loaded(family, {}), { backend, port: 0 })).rejects.toThrow(message);
});
