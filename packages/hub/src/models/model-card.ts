// The README.md of a model folder: what the model is, by its numbers, and how to use it.

import { type ModelConfig, mixerKindsOf, parameterCountOf } from "@sisa/core";

/** Markdown with the header that Hugging Face reads. */
export function modelCard(config: ModelConfig): string {
  const names = [...new Set(config.mixers)];
  const layers = names.map((name) => `${config.mixers.filter((mixer) => mixer === name).length} ${name}`).join(", ");
  const hasSisa = mixerKindsOf(config).has("sisa");
  const rows: [string, string | number][] = [
    ["Parameters", parameterCountOf(config).toLocaleString("en")],
    ["Layers", layers],
    ["Width", config.width],
    ["Heads", config.heads],
    ["Feed-forward width", config.feedForwardWidth],
    ...(hasSisa
      ? ([
          ["State width per head", config.stateWidth],
          ["Form", config.form],
        ] satisfies [string, string | number][])
      : []),
    ["Vocabulary", config.vocabularySize],
    ["Positions", config.maximumLength],
  ];
  return `---
library_name: sisa
pipeline_tag: text-generation
tags: [${hasSisa ? "sisa, state-space, attention" : "transformer"}]
---

# Language model

| | |
|---|---|
${rows.map(([name, value]) => `| ${name} | ${value} |`).join("\n")}

\`\`\`ts
import { generate } from "@sisa/core";
import { loadModel } from "@sisa/hub/node";
import { onnxruntime } from "@sisa/onnx";

await using backend = await onnxruntime();
const m = await loadModel("path/to/this/folder");
for await (const id of generate({ ...m, backend, tokens: m.tokenizer.encode("Once"), maxTokens: 50 })) {
  console.log(m.tokenizer.decode([id]));
}
\`\`\`
`;
}
