// What a model is made of: parameters by part, what its cache keeps for a token.
import { bytesOf, type LanguageModel } from "@sisa/core";

/** Parts of a model, each with what its parameters' names contain; the first that fits counts. */
const parts: readonly (readonly [part: string, pattern: RegExp])[] = [
  ["embedding", /^embed\./],
  ["head", /^lm_head\./],
  ["meta tokens", /^meta_tokens\./],
  [
    "importance (B, C, theta, alpha, lambda)",
    /^layers\.\d+\.(W_B|W_C|B_norm|C_norm|theta_proj|alpha_proj|lambda_raw)\b/,
  ],
  ["state space mixer", /\.mamba\./],
  ["gates and shifts of attention", /\.(W_F|k_shift|v_shift|out_gate)\./],
  ["norms", /norms?\./],
  ["attention (Q, K, V, O)", /\.W_[QKVO]\./],
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

/** What a sequence's cache takes, in bytes, by what is kept. */
export interface CacheBytes {
  /** For each token. */
  readonly perToken: ReadonlyMap<string, number>;
  /** However many tokens there are: states of recurrent layers. */
  readonly fixed: ReadonlyMap<string, number>;
}

export function cacheBytes(model: LanguageModel): CacheBytes {
  const [one, two] = [1, 2].map((capacity) => bytesByEntry(model, capacity));
  const perToken = new Map<string, number>();
  const fixed = new Map<string, number>();
  for (const [entry, bytes] of one ?? []) {
    const growth = (two?.get(entry) ?? 0) - bytes;
    if (growth > 0) perToken.set(entry, growth);
    if (bytes > growth) fixed.set(entry, bytes - growth);
  }
  return { perToken, fixed };
}

function bytesByEntry(model: LanguageModel, capacity: number): ReadonlyMap<string, number> {
  const bytes = new Map<string, number>();
  for (const [name, { dtype, shape }] of Object.entries(model.cacheSpecs(1, capacity))) {
    const entry = name.slice(name.lastIndexOf(".") + 1);
    const elements = shape.reduce((product, size) => product * (size.value ?? 0), 1);
    bytes.set(entry, (bytes.get(entry) ?? 0) + elements * bytesOf(dtype));
  }
  return bytes;
}
