// Jamba in the names of transformers. Source: transformers 5.18, models/jamba.

import type { FeedForwardKind, ModelConfig } from "@sisa/core";
import {
  attentionNames,
  denseNames,
  type ForeignConfig,
  type ForeignModel,
  outsideNames,
  partsOf,
  unknownParameter,
} from "./foreign-model.ts";

export function jamba(fields: ForeignConfig): ForeignModel {
  fields.expect("hidden_act", "silu");
  fields.expect("mamba_conv_bias", true);
  fields.expect("mamba_proj_bias", false);
  const layers = fields.number("num_hidden_layers");
  const every = (period: string, offset: string) => (layer: number) =>
    layer % fields.number(period) === fields.number(offset);
  const attends = every("attn_layer_period", "attn_layer_offset");
  const routes = every("expert_layer_period", "expert_layer_offset");
  const width = fields.number("hidden_size");
  const experts = { count: fields.number("num_experts"), perToken: fields.number("num_experts_per_tok") };
  const list = Array.from({ length: layers }, (_, layer) => layer);
  const feedForwards = list.map((layer): FeedForwardKind => (experts.count > 1 && routes(layer) ? "routed" : "dense"));
  const tiedHead = fields.boolean("tie_word_embeddings", false);
  const config: ModelConfig = {
    mixers: list.map((layer) => (attends(layer) ? "nope" : "mamba")),
    vocabularySize: fields.number("vocab_size"),
    width,
    heads: fields.number("num_attention_heads"),
    feedForwardWidth: fields.number("intermediate_size"),
    stateWidth: fields.number("mamba_d_state"),
    form: "exact",
    maximumLength: fields.number("max_position_embeddings"),
    ropeBase: 10_000,
    normEpsilon: fields.number("rms_norm_eps"),
    mixerSettings: {
      nope: { kind: "attention", positions: "none", keyValueHeads: fields.number("num_key_value_heads") },
      mamba: {
        kind: "mamba",
        normalize: true,
        innerWidth: fields.number("mamba_expand") * width,
        stepWidth: fields.number("mamba_dt_rank"),
        convWidth: fields.number("mamba_d_conv"),
      },
    },
    ...(feedForwards.includes("routed") ? { feedForwards, experts } : {}),
    ...(tiedHead ? {} : { tiedHead }),
  };
  return {
    config,
    tensorFor(name) {
      const parts = partsOf(name);
      if (parts === undefined) return { names: [outsideNames[name] ?? unknownParameter("jamba", name)] };
      const { layer, rest } = parts;
      const prefix = `model.layers.${layer}.`;
      const expert = /^ffn\.experts\.w_(gate|up|down)\.weight$/.exec(rest)?.[1];
      if (expert !== undefined) {
        const names = Array.from(
          { length: experts.count },
          (_, index) => `${prefix}feed_forward.experts.${index}.${expert}_proj.weight`,
        );
        return { names };
      }
      if (rest === "ffn.router.weight") return { names: [`${prefix}feed_forward.router.weight`] };
      if (rest === "norm.weight") return { names: [`${prefix}input_layernorm.weight`] };
      const known = attentionNames[rest] ?? denseNames[rest] ?? (rest.startsWith("mamba.") ? rest : undefined);
      return { names: [prefix + (known ?? unknownParameter("jamba", name))] };
    },
  };
}
