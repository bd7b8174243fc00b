// Mamba-1 and Mamba-2 in the names of transformers. Source: transformers 5.18, models/mamba and models/mamba2.

import type { MixerSettings } from "@sisa/core";
import { backboneTensor, type ForeignConfig, type ForeignModel } from "./foreign-model.ts";

export function mamba(fields: ForeignConfig): ForeignModel {
  const width = fields.number("hidden_size");
  const stepRank = fields.json.time_step_rank ?? "auto";
  return stateSpaceModel(fields, {
    kind: "mamba",
    innerWidth: fields.number("expand", 2) * width,
    ...(stepRank === "auto" ? {} : { stepWidth: fields.number("time_step_rank") }),
    convWidth: fields.number("conv_kernel", 4),
  });
}

export function mamba2(fields: ForeignConfig): ForeignModel {
  const headWidth = fields.number("head_dim");
  // The norm inside has a fixed epsilon here.
  fields.expect("layer_norm_epsilon", 1e-5);
  return stateSpaceModel(fields, {
    kind: "mamba2",
    innerWidth: fields.number("num_heads") * headWidth,
    headWidth,
    groups: fields.number("n_groups", 1),
    convWidth: fields.number("conv_kernel", 4),
  });
}

function stateSpaceModel(fields: ForeignConfig, settings: MixerSettings): ForeignModel {
  fields.expect("use_bias", false);
  fields.expect("use_conv_bias", true);
  fields.expect("hidden_act", "silu");
  const tiedHead = fields.boolean("tie_word_embeddings", true);
  const { kind } = settings;
  return {
    config: {
      mixers: new Array<string>(fields.number("num_hidden_layers")).fill(kind),
      vocabularySize: fields.number("vocab_size"),
      width: fields.number("hidden_size"),
      heads: 1,
      feedForwardWidth: 0,
      stateWidth: fields.number("state_size"),
      form: "exact",
      // Nothing in the model depends on positions; this is what caches and training take at most.
      maximumLength: fields.number("max_position_embeddings", 8192),
      ropeBase: 10_000,
      normEpsilon: fields.number("layer_norm_epsilon", 1e-5),
      mixerSettings: { [kind]: settings },
      ...(tiedHead ? {} : { tiedHead }),
    },
    tensorFor: backboneTensor(kind, { embedding: "backbone.embeddings.weight", layer: {} }),
  };
}
