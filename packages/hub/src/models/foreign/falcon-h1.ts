// Falcon-H1 in the names of transformers. Source: transformers 5.18, models/falcon_h1.

import { ConfigError } from "@sisa/core";
import {
  attentionNames,
  denseNames,
  type ForeignConfig,
  type ForeignModel,
  halvesOfHeads,
  outsideNames,
  partsOf,
  unknownParameter,
} from "./foreign-model.ts";

/** The factors that are kept beside the weights are multiplied into them. */
export function falconH1(fields: ForeignConfig): ForeignModel {
  fields.expect("hidden_act", "silu");
  for (const name of ["mamba_proj_bias", "attention_bias", "mlp_bias", "projectors_bias"]) fields.expect(name, false);
  fields.expect("mamba_conv_bias", true);
  const heads = fields.number("num_attention_heads");
  const width = fields.number("hidden_size");
  const headWidth = fields.number("head_dim", width / heads);
  const innerWidth = fields.number("mamba_d_ssm");
  const groups = fields.number("mamba_n_groups");
  const stateWidth = fields.number("mamba_d_state");
  const hasNorm = fields.boolean("mamba_rms_norm", false);
  // The norm inside has a fixed epsilon here.
  if (hasNorm) fields.expect("rms_norm_eps", 1e-5);
  const outputNorm = !hasNorm ? "none" : fields.boolean("mamba_norm_before_gate", true) ? "before-gate" : "after-gate";
  const tiedHead = fields.boolean("tie_word_embeddings", false);
  const factor = (name: string) => fields.number(name, 1);
  const headFactor = factor("lm_head_multiplier");
  const embeddingFactor = factor("embedding_multiplier");
  if (tiedHead && headFactor !== embeddingFactor) {
    throw new ConfigError("config.json: falcon_h1 with one embedding and head of two multipliers is not known");
  }
  const [gateFactor = 1, downFactor = 1] = fields.numbers("mlp_multipliers", 2);
  const parts = fields.numbers("ssm_multipliers", 5);
  const ends = [innerWidth, innerWidth, groups * stateWidth, groups * stateWidth, Number.POSITIVE_INFINITY];
  const inFactor = factor("ssm_in_multiplier");
  const ssmFactor = (row: number) => {
    let end = 0;
    const part = ends.findIndex((size) => {
      end += size;
      return row < end;
    });
    return inFactor * (parts[part] ?? 1);
  };
  const attentionIn = factor("attention_in_multiplier");
  const keyFactor = attentionIn * factor("key_multiplier");
  const constantFactors: Readonly<Record<string, number>> = {
    "W_Q.weight": attentionIn,
    "W_K.weight": keyFactor,
    "W_V.weight": attentionIn,
    "W_O.weight": factor("attention_out_multiplier"),
    "mamba.out_proj.weight": factor("ssm_out_multiplier"),
    "ffn.w_gate.weight": gateFactor,
    "ffn.w_down.weight": downFactor,
    "embed.weight": embeddingFactor,
    "lm_head.weight": headFactor,
  };
  const unpaired = halvesOfHeads(headWidth);
  const rope = fields.json.rope_parameters;
  const ropeBase =
    typeof rope === "object" && rope !== null && "rope_theta" in rope ? rope.rope_theta : fields.json.rope_theta;
  if (typeof ropeBase !== "number") {
    throw new ConfigError(`config.json: rope_theta must be a number, got ${JSON.stringify(ropeBase)}`);
  }
  return {
    config: {
      mixers: new Array<string>(fields.number("num_hidden_layers")).fill("attention+mamba2"),
      vocabularySize: fields.number("vocab_size"),
      width,
      heads,
      feedForwardWidth: fields.number("intermediate_size"),
      stateWidth,
      form: "exact",
      maximumLength: fields.number("max_position_embeddings"),
      ropeBase,
      normEpsilon: fields.number("rms_norm_eps"),
      mixerSettings: {
        attention: { kind: "attention", headWidth, keyValueHeads: fields.number("num_key_value_heads", heads) },
        mamba2: {
          kind: "mamba2",
          innerWidth,
          headWidth: fields.number("mamba_d_head"),
          groups,
          convWidth: fields.number("mamba_d_conv"),
          outputNorm,
        },
      },
      ...(tiedHead ? {} : { tiedHead }),
    },
    tensorFor(name) {
      const place = partsOf(name);
      const rest = place?.rest ?? name;
      const known = place
        ? (attentionNames[rest] ?? denseNames[rest] ?? (rest.startsWith("mamba.") ? rest : undefined))
        : outsideNames[name];
      if (known === undefined) unknownParameter("falcon_h1", name);
      const all = constantFactors[rest] ?? 1;
      const isRotated = rest === "W_Q.weight" || rest === "W_K.weight";
      return {
        names: [place ? `model.layers.${place.layer}.${known}` : known],
        rowOf: isRotated ? unpaired : undefined,
        factorOf: rest === "mamba.in_proj.weight" ? ssmFactor : all === 1 ? undefined : () => all,
      };
    },
  };
}
