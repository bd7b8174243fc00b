// What a model is made of: parameters by part, what its cache keeps for a token.
import { bytesOf, type LanguageModel } from "@sisa/core";

/** Parts of a model, each with what its parameters' names contain; the first that fits counts. */
const parts: readonly (readonly [part: string, pattern: RegExp])[] = [
  ["embedding, also the head", /^embed\./],
  ["norms", /norm\./],
  ["attention (Q, K, V, O)", /\.W_[QKVO]\./],
  ["importance (B, C, theta, alpha, lambda)", /\.(W_B|W_C|theta_proj|alpha_proj|lambda_raw)\b/],
  ["feed-forward", /\.ffn\./],
];
const otherPart = "other";

/** Number of parameters by part, parts without any left out. */
export function parametersByPart(model: LanguageModel): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const [name, { shape }] of Object.entries(model.parameters)) {
    const part = parts.find(([, pattern]) => pattern.test(name))?.[0] ?? otherPart;
    counts.set(part, (counts.get(part) ?? 0) + shape.reduce((a, b) => a * b, 1));
  }
  const order = [...parts.map(([part]) => part), otherPart];
  return new Map([...counts].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)));
}

/** Bytes that the cache keeps for each token of a row, by what is kept. */
export function cacheBytesPerToken(model: LanguageModel): ReadonlyMap<string, number> {
  const bytes = new Map<string, number>();
  for (const [name, { dtype, shape }] of Object.entries(model.cacheSpecs(1, 1))) {
    const entry = name.slice(name.lastIndexOf(".") + 1);
    const elements = shape.reduce((product, size) => product * (size.value ?? 0), 1);
    bytes.set(entry, (bytes.get(entry) ?? 0) + elements * bytesOf(dtype));
  }
  return bytes;
}
