// The kinds of mixers: what can be set of each, how it is checked, and the layer that it makes.

import { ConfigError } from "../errors.ts";
import { AttentionMixer, type AttentionSettings } from "../layers/attention-mixer.ts";
import { MambaMixer, type MambaSettings } from "../layers/mamba-mixer.ts";
import { Mamba2Mixer, type Mamba2Settings } from "../layers/mamba2-mixer.ts";
import { Mamba3Mixer, type Mamba3Settings } from "../layers/mamba3-mixer.ts";
import type { Mixer } from "../layers/mixer.ts";
import { SisaMixer, type SisaSettings } from "../layers/sisa-mixer.ts";
import type { ModelConfig } from "./config.ts";

/** A mixer's kind and what is special about it; fields that are left out have their defaults. */
export type MixerSettings =
  | ({ readonly kind: "attention" } & AttentionSettings)
  | ({ readonly kind: "sisa" } & SisaSettings)
  | ({ readonly kind: "mamba" } & MambaSettings)
  | ({ readonly kind: "mamba2" } & Mamba2Settings)
  | ({ readonly kind: "mamba3" } & Mamba3Settings);

/** "attention", "sisa", "mamba", "mamba2" or "mamba3". */
export type MixerKind = MixerSettings["kind"];

/** What a field may hold: a whole number of at least 1, a truth value, or one of some words. */
type Rule = "count" | "boolean" | readonly string[];

type SettingsOf<K extends MixerKind> = Extract<MixerSettings, { readonly kind: K }>;

const rules: { readonly [K in MixerKind]: { readonly [N in Exclude<keyof SettingsOf<K>, "kind">]-?: Rule } } = {
  attention: {
    keyValueHeads: "count",
    headWidth: "count",
    keyWidth: "count",
    positions: ["rope", "alibi", "none"],
    window: "count",
    forget: "boolean",
    queryKeyNorm: "boolean",
    shift: "boolean",
    outputGate: "boolean",
    reuseKeys: "boolean",
  },
  sisa: {
    stateWidth: "count",
    positions: ["rope", "none"],
    decay: ["learned", "constant", "none"],
    weights: ["softmax", "sigmoid"],
    rotation: "boolean",
    normalize: "boolean",
    longestHalfLife: "count",
  },
  mamba: {
    stateWidth: "count",
    innerWidth: "count",
    stepWidth: "count",
    convWidth: "count",
    normalize: "boolean",
  },
  mamba2: {
    stateWidth: "count",
    innerWidth: "count",
    headWidth: "count",
    groups: "count",
    convWidth: "count",
    outputNorm: ["after-gate", "before-gate", "none"],
  },
  mamba3: {
    stateWidth: "count",
    innerWidth: "count",
    headWidth: "count",
    groups: "count",
    rank: "count",
    decay: ["softplus", "heavy-tail"],
    outputNorm: "boolean",
  },
};

/** Names of all kinds. */
export const mixerKinds = /* @__PURE__ */ Object.keys(rules) as readonly MixerKind[];

/** True for the name of a kind. */
export function isMixerKind(name: string): name is MixerKind {
  return Object.hasOwn(rules, name);
}

/** @throws ConfigError naming the first setting that cannot be */
export function checkMixerSettings(settings: MixerSettings, config: ModelConfig): void {
  const { kind } = settings;
  if (!isMixerKind(kind)) {
    throw new ConfigError(`model: the kind of a mixer must be one of ${mixerKinds.join(", ")}, got "${kind}"`);
  }
  const known: { readonly [name: string]: Rule } = rules[kind];
  for (const [name, value] of Object.entries(settings)) {
    if (name === "kind") continue;
    const rule = Object.hasOwn(known, name) ? known[name] : undefined;
    if (rule === undefined) {
      const names = Object.keys(known).join(", ") || "none";
      throw new ConfigError(`model: ${kind} has no setting ${name}; it has ${names}`);
    }
    const problem = problemOf(rule, value);
    if (problem) throw new ConfigError(`model: ${name} of ${kind} must be ${problem}, got ${JSON.stringify(value)}`);
  }
  checkSizes(settings, config);
}

function problemOf(rule: Rule, value: unknown): string | undefined {
  if (rule === "boolean") return typeof value === "boolean" ? undefined : "true or false";
  if (rule === "count") return Number.isSafeInteger(value) && Number(value) >= 1 ? undefined : "a whole number >= 1";
  return rule.includes(String(value)) ? undefined : rule.map((word) => `"${word}"`).join(" or ");
}

function checkSizes(settings: MixerSettings, { width, heads, stateWidth, form }: ModelConfig): void {
  switch (settings.kind) {
    case "attention": {
      const { headWidth = width / heads, keyWidth = headWidth, keyValueHeads = heads, positions = "rope" } = settings;
      expectMultiple("heads", heads, "keyValueHeads", keyValueHeads);
      if (positions === "rope" && keyWidth % 2 !== 0) expectEvenHeads(width, heads, keyWidth);
      if (positions === "alibi" && settings.forget) {
        throw new ConfigError('model: attention with forget takes no positions "alibi", since both penalise distance');
      }
      if (settings.reuseKeys && settings.shift) {
        throw new ConfigError("model: attention with reuseKeys has no keys of its own that shift could mix");
      }
      return;
    }
    case "sisa": {
      const S = settings.stateWidth ?? stateWidth;
      if (settings.positions !== "none" && (width / heads) % 2 !== 0) expectEvenHeads(width, heads, width / heads);
      if (S % 2 !== 0) {
        throw new ConfigError(`model: stateWidth must be even, since its channels rotate in pairs; got ${S}`);
      }
      if (settings.weights === "sigmoid" && form === "sdpa") {
        throw new ConfigError(
          'model: form "sdpa" is stock attention, which has no weights "sigmoid"; use form "exact"',
        );
      }
      return;
    }
    case "mamba":
      return;
    case "mamba2":
    case "mamba3": {
      const { innerWidth = 2 * width, headWidth = 64, groups = 1 } = settings;
      expectMultiple("innerWidth", innerWidth, "headWidth", headWidth);
      expectMultiple("the number of heads", innerWidth / headWidth, "groups", groups);
      // Half of the channels turn in pairs.
      if (settings.kind === "mamba3") expectMultiple("stateWidth", settings.stateWidth ?? stateWidth, "4", 4);
    }
  }
}

function expectEvenHeads(width: number, heads: number, keyWidth: number): never {
  const origin = keyWidth === width / heads ? `${width} / ${heads} = ${keyWidth}` : `keyWidth ${keyWidth}`;
  throw new ConfigError(`model: width / heads must be even for rotary positions, got ${origin}`);
}

function expectMultiple(name: string, value: number, divisorName: string, divisor: number): void {
  if (value % divisor !== 0) {
    throw new ConfigError(`model: ${divisorName} must divide ${name}, got ${divisor} and ${value}`);
  }
}

/** The layer that settings make in a model. */
export function createMixer(settings: MixerSettings, config: ModelConfig): Mixer {
  switch (settings.kind) {
    case "attention":
      return new AttentionMixer({ ...config, ...settings });
    case "sisa":
      return new SisaMixer({ ...config, ...settings });
    case "mamba":
      return new MambaMixer({ ...config, ...settings });
    case "mamba2":
      return new Mamba2Mixer({ ...config, ...settings });
    case "mamba3":
      return new Mamba3Mixer({ ...config, ...settings });
  }
}
