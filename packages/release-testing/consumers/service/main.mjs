// A model that was never trained, served to one request, without @sisa/train.
import { initialize, languageModel, preset } from "@sisa/core";
import { byteTokenizer } from "@sisa/hub";
import { loadModel, saveModel } from "@sisa/hub/node";
import { onnxruntime as openBackend } from "@sisa/onnx";
import { serve } from "@sisa/serve/node";

const tokenizer = byteTokenizer();
const sizes = { layers: 1, width: 8, heads: 2, stateWidth: 2, feedForwardWidth: 16, maximumLength: 64 };
const config = preset("sisa", "1m", { vocabularySize: tokenizer.size, ...sizes });
await saveModel("model", { config, parameters: initialize(languageModel(config), 1), tokenizer });
const backend = await openBackend();
const server = await serve(await loadModel("model"), { backend, port: 0 });
const answer = await fetch(`${server.url}/v1/completions`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ model: "sisa", prompt: "Once", max_tokens: 3, temperature: 0 }),
});
const { choices, usage } = await answer.json();
console.log(
  JSON.stringify({
    backend: backend.name,
    status: answer.status,
    tokens: usage.completion_tokens,
    text: choices[0].text,
  }),
);
await server.close();
await backend.close();
