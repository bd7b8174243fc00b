// What lies beside exported files: README.md for people, onnx/report.json for programs.

import type { Difference } from "./measure.ts";
import { suffixes, type WeightType } from "./weights.ts";

export interface ReportedVariant {
  readonly dtype: WeightType;
  /** Files under `onnx/`, with their sizes in bytes. */
  readonly files: { readonly [name: string]: number };
  /** Undefined where no held-out text was given. */
  readonly difference?: Difference;
}

export function reportBytes(variants: readonly ReportedVariant[]): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ variants }, undefined, 2)}\n`);
}

export function cardBytes(variants: readonly ReportedVariant[]): Uint8Array {
  const rows = variants.map(({ dtype, files, difference }) => {
    const megabytes = Object.values(files).reduce((a, b) => a + b, 0) / 1e6;
    const measured = difference
      ? [
          difference.meanLogitDifference.toExponential(1),
          difference.largestLogitDifference.toExponential(1),
          `${(100 * difference.sameToken).toFixed(1)} %`,
          difference.heldOutLoss.toFixed(4),
          (difference.heldOutLoss - difference.originalLoss).toExponential(1),
        ]
      : Array<string>(5).fill("not measured");
    return `| ${[dtype, `onnx/model${suffixes[dtype]}.onnx`, megabytes.toFixed(1), ...measured].join(" | ")} |`;
  });
  const isFixed = variants.some(({ files }) => Object.keys(files).some((name) => name.startsWith("model_fixed")));
  const fixed = isFixed
    ? ", `onnx/model_fixed*.onnx` decoders whose caches have a fixed capacity\nand are written in place"
    : "";
  const text = `# Language model in ONNX

\`onnx/model*.onnx\` are decoders whose caches grow${fixed}. config.json and the tokenizer's files are those of the model.

| weights | file | MB, all files | logits off by, mean | largest | same likeliest token | held-out loss, nats | above the original's |
|---|---|---|---|---|---|---|---|
${rows.join("\n")}

${
  variants.some(({ difference }) => difference)
    ? "Measured against the model itself, on a text that was not trained on, by the growing decoder on CPU."
    : "Differences from the original are measured where a held-out text is given to the export."
}
`;
  return new TextEncoder().encode(text);
}
