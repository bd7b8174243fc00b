// The families of models that are compared: what each is made of at a size.

import type { ModelConfig } from "./config.ts";
import type { MixerSettings } from "./mixers.ts";

/** Sizes of the Transformer, whose number of parameters all families of a size have. */
export interface TransformerSizes {
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly feedForwardWidth: number;
}

/** What differs from the Transformer. */
type Made = Partial<ModelConfig> & Pick<ModelConfig, "mixers">;

interface Recipe {
  /** What is solved so that parameters match: the feed-forward width, or the state widths of layers without one. */
  readonly solved: "feedForwardWidth" | "stateWidth";
  /** State widths are multiples of this. Default 1 */
  readonly unit?: number;
  make(sizes: TransformerSizes, layers: number): Made;
}

/** Every layer the same mixer, under its kind's name or one that says what is special. */
function uniform(name: string, settings?: MixerSettings): Recipe {
  return {
    solved: "feedForwardWidth",
    make: (_, layers) => ({
      mixers: new Array<string>(layers).fill(name),
      ...(settings ? { mixerSettings: { [name]: settings } } : {}),
    }),
  };
}

/** State space layers without feed-forward. */
function stateSpace(kind: "mamba2" | "mamba3", unit: number): Recipe {
  return {
    solved: "stateWidth",
    unit,
    make: (_, layers) => ({
      mixers: new Array<string>(layers).fill(kind),
      feedForwardWidth: 0,
      stateWidth: 64,
    }),
  };
}

export const families = {
  sisa: /* @__PURE__ */ uniform("sisa"),
  transformer: /* @__PURE__ */ uniform("attention"),
  /** Without any positions. */
  nope: /* @__PURE__ */ uniform("nope", { kind: "attention", positions: "none" }),
  alibi: /* @__PURE__ */ uniform("alibi", { kind: "attention", positions: "alibi" }),
  /** Keys half as wide again, as wide as SISA's score with S = 32 beside D = 64: is it the width that helps? */
  "wide-key": {
    solved: "feedForwardWidth",
    make: ({ width, heads }, layers) => ({
      mixers: new Array<string>(layers).fill("wide"),
      mixerSettings: { wide: { kind: "attention", keyWidth: (1.5 * width) / heads } },
    }),
  },
  fox: /* @__PURE__ */ uniform("fox", { kind: "attention", positions: "none", forget: true }),
  "fox-pro": /* @__PURE__ */ uniform("fox-pro", {
    kind: "attention",
    positions: "none",
    forget: true,
    queryKeyNorm: true,
    shift: true,
    outputGate: true,
  }),
  mamba2: /* @__PURE__ */ stateSpace("mamba2", 1),
  mamba3: /* @__PURE__ */ stateSpace("mamba3", 4),
  /** One layer of attention without positions among Mamba layers: every eighth, and the one in the middle at least. */
  jamba: {
    solved: "feedForwardWidth",
    make: (_, layers) => {
      const offset = Math.min(4, Math.floor(layers / 2));
      return {
        mixers: Array.from({ length: layers }, (_, layer) => (layer % 8 === offset ? "nope" : "mamba")),
        stateWidth: 16,
        mixerSettings: {
          nope: { kind: "attention", positions: "none" },
          mamba: { kind: "mamba", normalize: true },
        },
      };
    },
  },
  /** Attention and Mamba-2 side by side, summed. */
  "falcon-h1": {
    solved: "feedForwardWidth",
    make: ({ width }, layers) => ({
      mixers: new Array<string>(layers).fill("attention+mamba2"),
      stateWidth: 64,
      mixerSettings: { mamba2: { kind: "mamba2", innerWidth: width, outputNorm: "none" } },
    }),
  },
  /** Attention in windows and Mamba-2 side by side, normed and averaged; the first, middle and last layer see all. */
  hymba: {
    solved: "feedForwardWidth",
    make: ({ width, heads }, layers) => {
      const shape = { kind: "attention", headWidth: (2 * width) / heads, keyValueHeads: heads / 4 } as const;
      const isGlobal = (layer: number) => [0, Math.floor(layers / 2), layers - 1].includes(layer);
      const all = Array.from({ length: layers }, (_, layer) => isGlobal(layer));
      return {
        mixers: all.map((global) => (global ? "global+mamba2" : "local+mamba2")),
        combination: "mean",
        stateWidth: 16,
        metaTokens: 16,
        mixerSettings: {
          global: shape,
          ...(all.includes(false) ? { local: { ...shape, window: 256 } } : {}),
          mamba2: { kind: "mamba2", convWidth: 3 },
        },
      };
    },
  },
} as const satisfies { readonly [name: string]: Recipe };

/** Name of a family of models of equal size: "sisa", "transformer", "mamba2" and others. */
export type Family = keyof typeof families;

export function recipeOf(family: Family): Recipe {
  return families[family];
}
