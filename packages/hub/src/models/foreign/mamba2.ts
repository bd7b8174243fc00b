// Mamba-2 in the names of transformers. Source: transformers 5.18, models/mamba2.

import { type ForeignConfig, type ForeignModel, partsOf, unknownParameter } from "./foreign-model.ts";

const outside: Readonly<Record<string, string>> = {
  "embed.weight": "backbone.embeddings.weight",
  "final_norm.weight": "backbone.norm_f.weight",
  "lm_head.weight": "lm_head.weight",
};

export function mamba2(fields: ForeignConfig): ForeignModel {
  fields.expect("use_bias", false);
  fields.expect("use_conv_bias", true);
  fields.expect("hidden_act", "silu");
  // The norm inside has a fixed epsilon here.
  fields.expect("layer_norm_epsilon", 1e-5);
  const width = fields.number("hidden_size");
  const [heads, headWidth] = [fields.number("num_heads"), fields.number("head_dim")];
  const tiedHead = fields.boolean("tie_word_embeddings", true);
  return {
    config: {
      mixers: new Array<string>(fields.number("num_hidden_layers")).fill("mamba2"),
      vocabularySize: fields.number("vocab_size"),
      width,
      heads: 1,
      feedForwardWidth: 0,
      stateWidth: fields.number("state_size"),
      form: "exact",
      // Nothing in the model depends on positions; this is what caches and training take at most.
      maximumLength: fields.number("max_position_embeddings", 8192),
      ropeBase: 10_000,
      normEpsilon: fields.number("layer_norm_epsilon", 1e-5),
      mixerSettings: {
        mamba2: {
          kind: "mamba2",
          innerWidth: heads * headWidth,
          headWidth,
          groups: fields.number("n_groups", 1),
          convWidth: fields.number("conv_kernel", 4),
        },
      },
      ...(tiedHead ? {} : { tiedHead }),
    },
    tensorFor(name) {
      const parts = partsOf(name);
      if (parts === undefined) return { names: [outside[name] ?? unknownParameter("mamba2", name)] };
      return { names: [`backbone.layers.${parts.layer}.${parts.rest.replace(/^mamba\./, "mixer.")}`] };
    },
  };
}
