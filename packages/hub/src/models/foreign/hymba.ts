// Hymba in the names of its own code. Source: nvidia/Hymba-1.5B-Base, configuration_hymba.py and modeling_hymba.py.

import { ConfigError } from "@sisa/core";
import {
  type ForeignConfig,
  type ForeignModel,
  type ForeignTensor,
  halvesOfHeads,
  outsideNames,
  partsOf,
  unknownParameter,
} from "./foreign-model.ts";

export function hymba(fields: ForeignConfig): ForeignModel {
  for (const name of ["hidden_act", "mlp_hidden_act"]) fields.expect(name, "silu");
  fields.expect("rope", true);
  fields.expect("mamba_conv_bias", true);
  for (const name of ["mamba_proj_bias", "kv_weight_reuse"]) fields.expect(name, false);
  fields.expect("num_mamba", 1);
  for (const name of ["kv_reuse_every_i_layer", "attn_hidden_size"]) fields.expect(name, -1);
  fields.expect("memory_tokens_interspersed_every", 0);
  fields.expect("kq_norm", "none", null);
  const layers = fields.number("num_hidden_layers");
  const width = fields.number("hidden_size");
  const heads = fields.number("num_attention_heads");
  const keyValueHeads = fields.number("num_key_value_heads", heads);
  const innerWidth = fields.number("mamba_expand", 2) * width;
  const [keyWidth, headWidth] = [width / heads, innerWidth / heads];
  fields.expect("kq_head_dim", -1, keyWidth);
  fields.expect("v_head_dim", -1, headWidth);
  const window = fields.json.sliding_window ?? undefined;
  const isGlobal = (layer: number) => window === undefined || lists(fields, "global_attn_idx").flat().includes(layer);
  const reusing = reusingLayers(lists(fields, "kv_reuse_group"));
  const stepRank = fields.json.mamba_dt_rank ?? "auto";
  const tiedHead = fields.boolean("tie_word_embeddings", false);
  const metaTokens = fields.number("num_memory_tokens", 0);

  const shape = { kind: "attention", keyWidth, headWidth, keyValueHeads } as const;
  // Their window is of the tokens before, without the token itself.
  const local = window === undefined ? shape : { ...shape, window: fields.number("sliding_window") + 1 };
  const names: readonly string[] = Array.from({ length: layers }, (_, layer) => {
    if (reusing.has(layer)) return isGlobal(layer) ? "globalAgain" : "localAgain";
    return isGlobal(layer) ? "global" : "local";
  });
  const kinds = {
    global: shape,
    globalAgain: { ...shape, reuseKeys: true },
    local,
    localAgain: { ...local, reuseKeys: true },
  };

  // Rows of in_proj: queries, keys and values where the layer has its own, input and gate of Mamba.
  const rowsOf = (layer: number) => {
    const own = reusing.has(layer) ? 0 : keyValueHeads;
    const ends = [width, own * keyWidth, own * headWidth, 2 * innerWidth].map((_, index, all) =>
      all.slice(0, index + 1).reduce((a, b) => a + b, 0),
    );
    const [keys = 0, values = 0, inputs = 0, rows = 0] = ends;
    return { keys, values, inputs, rows };
  };
  const unpaired = halvesOfHeads(keyWidth);
  const tensorOf = (layer: number, rest: string): ForeignTensor | undefined => {
    const { keys, values, inputs, rows } = rowsOf(layer);
    const projected = (rowOf: (row: number) => number) => ({ names: ["mamba.in_proj.weight"], rows, rowOf });
    switch (rest) {
      case "W_Q.weight":
        return projected(unpaired);
      case "W_K.weight":
        return projected((row) => keys + unpaired(row));
      case "W_V.weight":
        return projected((row) => values + row);
      case "mamba.in_proj.weight":
        return projected((row) => inputs + row);
    }
    const name = Object.hasOwn(layerNames, rest) ? layerNames[rest] : undefined;
    return name === undefined ? undefined : { names: [name] };
  };
  return {
    config: {
      mixers: names.map((name) => `${name}+mamba`),
      combination: "mean",
      vocabularySize: fields.number("vocab_size"),
      width,
      heads,
      feedForwardWidth: fields.number("intermediate_size"),
      stateWidth: fields.number("mamba_d_state", 16),
      form: "exact",
      maximumLength: fields.number("max_position_embeddings"),
      ropeBase: ropeBaseOf(fields, keyWidth),
      normEpsilon: fields.number("rms_norm_eps", 1e-6),
      mixerSettings: {
        ...Object.fromEntries(Object.entries(kinds).filter(([name]) => names.includes(name))),
        mamba: {
          kind: "mamba",
          innerWidth,
          ...(stepRank === "auto" ? {} : { stepWidth: fields.number("mamba_dt_rank") }),
          convWidth: fields.number("mamba_d_conv", 4),
          normalize: fields.boolean("mamba_inner_layernorms", true),
        },
      },
      ...(metaTokens > 0 ? { metaTokens } : {}),
      ...(tiedHead ? {} : { tiedHead }),
    },
    tensorFor(name) {
      if (name === "meta_tokens.weight") return { names: ["model.memory_tokens"] };
      const parts = partsOf(name);
      if (parts === undefined) return { names: [outsideNames[name] ?? unknownParameter("hymba", name)] };
      const known = tensorOf(parts.layer, parts.rest) ?? unknownParameter("hymba", name);
      return { ...known, names: known.names.map((own) => `model.layers.${parts.layer}.${own}`) };
    },
  };
}

const layerNames: Readonly<Record<string, string>> = {
  "attn_norm.weight": "input_layernorm.weight",
  "mamba.conv1d.weight": "mamba.conv1d.weight",
  "mamba.conv1d.bias": "mamba.conv1d.bias",
  "mamba.x_proj.weight": "mamba.x_proj.0.weight",
  "mamba.dt_proj.weight": "mamba.dt_proj.0.weight",
  "mamba.dt_proj.bias": "mamba.dt_proj.0.bias",
  "mamba.A_log": "mamba.A_log.0",
  "mamba.D": "mamba.D.0",
  "mamba.dt_layernorm.weight": "mamba.dt_layernorm.weight",
  "mamba.b_layernorm.weight": "mamba.B_layernorm.weight",
  "mamba.c_layernorm.weight": "mamba.C_layernorm.weight",
  "branch_norms.0.weight": "mamba.pre_avg_layernorm1.weight",
  "branch_norms.1.weight": "mamba.pre_avg_layernorm2.weight",
  "W_O.weight": "mamba.out_proj.weight",
  "ffn_norm.weight": "pre_moe_layernorm.weight",
  "ffn.w_gate.weight": "moe.experts.0.gate_proj.weight",
  "ffn.w_up.weight": "moe.experts.0.up_proj.weight",
  "ffn.w_down.weight": "moe.experts.0.down_proj.weight",
};

function lists(fields: ForeignConfig, name: string): readonly unknown[] {
  const value = fields.json[name] ?? [];
  if (Array.isArray(value)) return value;
  throw new ConfigError(`config.json: ${name} must be a list, got ${JSON.stringify(value)}`);
}

/** Layers that take keys and values from the first of their group; here that is the nearest layer that has its own. */
function reusingLayers(groups: readonly unknown[]): ReadonlySet<number> {
  const reusing = new Set<number>();
  for (const group of groups) {
    const isRun = Array.isArray(group) && group.every((layer, index) => layer === group[0] + index);
    if (!isRun) {
      const found = JSON.stringify(group);
      throw new ConfigError(
        `config.json: hymba with kv_reuse_group ${found} is not known, only layers one after another`,
      );
    }
    for (const layer of group.slice(1)) reusing.add(layer);
  }
  return reusing;
}

/** Wavelengths stretched from the start, as `rope_type` "ntk" does. */
function ropeBaseOf(fields: ForeignConfig, keyWidth: number): number {
  fields.expect("rope_type", null, "default", "ntk");
  const base = fields.number("rope_theta", 10_000);
  if (fields.json.rope_type !== "ntk") return base;
  const stretch = fields.number("max_position_embeddings") / fields.number("orig_max_position_embeddings");
  return base * (2 * stretch - 1) ** (keyWidth / (keyWidth - 2));
}
