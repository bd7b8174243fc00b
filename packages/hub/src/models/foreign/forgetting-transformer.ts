// FoX in the names of its own code, as transformers saves it. Source: zhixuan-lin/forgetting-transformer 883f260,
// model/forgetting_transformer.

import { ConfigError } from "@sisa/core";
import {
  type ForeignConfig,
  type ForeignModel,
  type ForeignTensor,
  halvesOfHeads,
  partsOf,
  unknownParameter,
} from "./foreign-model.ts";

const outside: Readonly<Record<string, string>> = {
  "embed.weight": "model.embeddings.weight",
  "final_norm.weight": "model.norm.weight",
  "lm_head.weight": "lm_head.weight",
};

export function forgettingTransformer(fields: ForeignConfig): ForeignModel {
  fields.expect("hidden_act", "swish");
  fields.expect("fgate_type", "full");
  fields.expect("ogate_act", "sigmoid");
  for (const name of ["num_kv_heads", "window_size"]) fields.expect(name, null);
  fields.expect("attention_bias", false);
  const [gates, norms] = [fields.boolean("use_output_gate", false), fields.boolean("use_output_norm", false)];
  const [keys, values] = [fields.boolean("use_k_shift", false), fields.boolean("use_v_shift", false)];
  if (gates !== norms || keys !== values) {
    throw new ConfigError(
      "config.json: forgetting_transformer is known with use_output_gate and use_output_norm both or neither, and so " +
        `with use_k_shift and use_v_shift; got ${gates} and ${norms}, ${keys} and ${values}`,
    );
  }
  const width = fields.number("hidden_size");
  const heads = fields.number("num_heads");
  const headWidth = width / heads;
  const isRotated = fields.boolean("use_rope", false);
  const queryKeyNorm = fields.boolean("qk_norm", false);
  const isShared = fields.boolean("qk_norm_share_param_across_head", false);
  const suggested = Math.trunc((width * fields.number("hidden_ratio", 4) * 2) / 3);
  const feedForwardWidth = fields.number("intermediate_size", 256 * Math.ceil(suggested / 256));
  const tiedHead = fields.boolean("tie_word_embeddings", false);

  const unpaired = isRotated ? halvesOfHeads(headWidth) : undefined;
  const queryKey = (name: string): ForeignTensor => ({ names: [name], rowOf: unpaired });
  const norm = (name: string): ForeignTensor =>
    isShared
      ? { names: [name], rows: headWidth, rowOf: (row) => (unpaired?.(row) ?? row) % headWidth }
      : queryKey(name);
  const half = (start: number): ForeignTensor => ({
    names: ["mlp.gate_proj.weight"],
    rows: 2 * feedForwardWidth,
    rowOf: (row) => start + row,
  });
  const linear = keys ? ".linear" : "";
  const layer: Readonly<Record<string, ForeignTensor>> = {
    "attn_norm.weight": { names: ["attn_norm.weight"] },
    "W_Q.weight": queryKey("attn.q_proj.weight"),
    "W_K.weight": queryKey(`attn.k_proj${linear}.weight`),
    "W_V.weight": { names: [`attn.v_proj${linear}.weight`] },
    "k_shift.weight": { names: ["attn.k_proj.shift_proj.weight"] },
    "v_shift.weight": { names: ["attn.v_proj.shift_proj.weight"] },
    "q_norm.weight": norm("attn.q_norm.weight"),
    "k_norm.weight": norm("attn.k_norm.weight"),
    "W_F.weight": { names: ["attn.fgate_proj.weight"] },
    "W_F.bias": { names: ["attn.fgate_proj.bias"] },
    "out_norm.weight": { names: ["attn.output_norm.weight"] },
    "out_gate.weight": { names: ["attn.ogate_proj.weight"] },
    "W_O.weight": { names: ["attn.o_proj.weight"] },
    "ffn_norm.weight": { names: ["mlp_norm.weight"] },
    "ffn.w_gate.weight": half(0),
    "ffn.w_up.weight": half(feedForwardWidth),
    "ffn.w_down.weight": { names: ["mlp.down_proj.weight"] },
  };
  return {
    config: {
      mixers: new Array<string>(fields.number("num_hidden_layers")).fill("fox"),
      vocabularySize: fields.number("vocab_size"),
      width,
      heads,
      feedForwardWidth,
      stateWidth: 1,
      form: "exact",
      // Theirs is often null; they were trained on 16,384 tokens.
      maximumLength: fields.number("max_position_embeddings", 16_384),
      ropeBase: fields.number("rope_base", 500_000),
      normEpsilon: fields.number("norm_eps", 1e-6),
      mixerSettings: {
        fox: {
          kind: "attention",
          forget: true,
          positions: isRotated ? "rope" : "none",
          queryKeyNorm,
          shift: keys,
          outputGate: gates,
        },
      },
      ...(tiedHead ? {} : { tiedHead }),
    },
    tensorFor(name) {
      const parts = partsOf(name);
      if (parts === undefined) return { names: [outside[name] ?? unknownParameter("forgetting_transformer", name)] };
      const known = layer[parts.rest] ?? unknownParameter("forgetting_transformer", name);
      return { ...known, names: known.names.map((own) => `model.layers.${parts.layer}.${own}`) };
    },
  };
}
