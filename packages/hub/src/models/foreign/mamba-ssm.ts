// Mamba-1, -2 and -3 as mamba_ssm writes them: a config.json without a model_type, weights in pytorch_model.bin or any .pt.
// Source: state-spaces/mamba e9594ce, mamba_ssm/models/mixer_seq_simple.py and mamba_ssm/modules.

import { CheckpointError, ConfigError, type MixerSettings } from "@sisa/core";
import { isObject } from "../../json.ts";
import type { TensorInfo } from "../../tensors.ts";
import { backboneTensor, ForeignConfig, type ForeignModel, type ForeignTensor, type Json } from "./foreign-model.ts";

const embedding = "backbone.embedding.weight";

/** True for a config.json in the fields of mamba_ssm. */
export function isMambaSsm(json: Json): boolean {
  return json.model_type === undefined && "d_model" in json && "n_layer" in json;
}

type StateSpaceSettings = Extract<MixerSettings, { readonly kind: "mamba" | "mamba2" | "mamba3" }> & {
  readonly stateWidth: number;
};

/** Every mixer the code knows, from the fields of `ssm_cfg`. */
const layers: { readonly [layer: string]: (own: ForeignConfig, width: number) => StateSpaceSettings } = {
  Mamba1(own, width) {
    own.expect("bias", false);
    own.expect("conv_bias", true);
    const stepRank = own.json.dt_rank ?? "auto";
    return {
      kind: "mamba",
      stateWidth: own.number("d_state", 16),
      innerWidth: own.number("expand", 2) * width,
      convWidth: own.number("d_conv", 4),
      ...(stepRank === "auto" ? {} : { stepWidth: own.number("dt_rank") }),
    };
  },
  Mamba2(own, width) {
    own.expect("bias", false);
    own.expect("conv_bias", true);
    own.expect("d_ssm", null);
    own.expect("D_has_hdim", false);
    const isBefore = own.boolean("norm_before_gate", false);
    return {
      kind: "mamba2",
      stateWidth: own.number("d_state", 128),
      innerWidth: own.number("expand", 2) * width,
      headWidth: own.number("headdim", 64),
      groups: own.number("ngroups", 1),
      convWidth: own.number("d_conv", 4),
      outputNorm: !own.boolean("rmsnorm", true) ? "none" : isBefore ? "before-gate" : "after-gate",
    };
  },
  Mamba3(own, width) {
    own.expect("rope_fraction", 0.5);
    own.expect("A_floor", 1e-4);
    // Its kernel turns channels i and i + N / 2 together, not neighbours.
    own.expect("is_mimo", false);
    return {
      kind: "mamba3",
      stateWidth: own.number("d_state", 128),
      innerWidth: own.number("expand", 2) * width,
      headWidth: own.number("headdim", 64),
      groups: own.number("ngroups", 1),
      // What the code computes since June 2026; nothing in a file tells of the softplus before.
      decay: "heavy-tail",
      outputNorm: own.boolean("is_outproj_norm", false),
    };
  },
};

export function mambaSsm(fields: ForeignConfig): ForeignModel {
  fields.expect("rms_norm", true);
  const attending = fields.json.attn_layer_idx ?? [];
  if (!Array.isArray(attending) || attending.length > 0) {
    const found = JSON.stringify(attending);
    throw new ConfigError(`config.json: mamba_ssm with attn_layer_idx ${found} is not known, only []`);
  }
  const { layer = "Mamba1", ...own } = isObject(fields.json.ssm_cfg) ? fields.json.ssm_cfg : {};
  const read = Object.hasOwn(layers, String(layer)) ? layers[String(layer)] : undefined;
  if (!read) {
    const known = Object.keys(layers).join(", ");
    throw new ConfigError(`config.json: ssm_cfg.layer must be one of ${known}, got ${JSON.stringify(layer)}`);
  }
  const width = fields.number("d_model");
  const settings = read(new ForeignConfig({ ...own, model_type: `mamba_ssm ${layer}` }), width);
  const padded = (size: number, multiple: number) => Math.ceil(size / multiple) * multiple;
  const feedForwardWidth = padded(fields.number("d_intermediate", 0), 128);
  const tiedHead = fields.boolean("tie_embeddings", true);
  const half = (start: number): Omit<ForeignTensor, "names"> => ({
    rows: 2 * feedForwardWidth,
    rowOf: (row) => start + row,
  });
  return {
    config: {
      mixers: new Array<string>(fields.number("n_layer")).fill(settings.kind),
      vocabularySize: padded(fields.number("vocab_size"), fields.number("pad_vocab_size_multiple", 8)),
      width,
      heads: 1,
      feedForwardWidth,
      stateWidth: settings.stateWidth,
      form: "exact",
      // Nothing in the model depends on positions; this is what caches and training take at most.
      maximumLength: 8192,
      ropeBase: 10_000,
      normEpsilon: 1e-5,
      mixerSettings: { [settings.kind]: settings },
      ...(tiedHead ? {} : { tiedHead }),
    },
    tensorFor: backboneTensor("mamba_ssm", {
      embedding,
      layer: {
        "ffn_norm.weight": { names: ["norm2.weight"] },
        "ffn.w_up.weight": { names: ["mlp.fc1.weight"], ...half(0) },
        "ffn.w_gate.weight": { names: ["mlp.fc1.weight"], ...half(feedForwardWidth) },
        "ffn.w_down.weight": { names: ["mlp.fc2.weight"] },
      },
    }),
  };
}

/**
 * The config.json of weights that lie alone, read off their shapes; groups of B and C, which these do not tell, are taken
 * to be one.
 * @returns undefined for weights of other code
 * @throws CheckpointError naming a tensor that is missing
 */
export function mambaSsmConfig(tensors: ReadonlyMap<string, TensorInfo>, location: string): Json | undefined {
  const sizes = (name: string): readonly number[] => {
    const tensor = tensors.get(name);
    if (tensor === undefined)
      throw new CheckpointError(`${location}: expected weights of mamba_ssm; ${name} is missing`);
    return tensor.shape;
  };
  if (!tensors.has(embedding)) return undefined;
  const size = (name: string, axis: number) => sizes(`backbone.layers.0.${name}`)[axis] ?? 0;
  const has = (name: string) => tensors.has(`backbone.layers.0.${name}`);
  const [vocabularySize = 0, width = 0] = sizes(embedding);
  const innerWidth = size("mixer.out_proj.weight", 1);
  let layerCount = 0;
  while (tensors.has(`backbone.layers.${layerCount}.norm.weight`)) layerCount += 1;
  const mixer = () => {
    if (has("mixer.x_proj.weight")) {
      return {
        layer: "Mamba1",
        d_state: size("mixer.A_log", 1),
        d_conv: size("mixer.conv1d.weight", 2),
        dt_rank: size("mixer.dt_proj.weight", 1),
      };
    }
    const headdim = innerWidth / size("mixer.dt_bias", 0);
    if (has("mixer.B_bias")) {
      return {
        layer: "Mamba3",
        d_state: size("mixer.B_norm.weight", 0),
        headdim,
        is_outproj_norm: has("mixer.norm.weight"),
        is_mimo: has("mixer.mimo_x"),
      };
    }
    return {
      layer: "Mamba2",
      d_state: (size("mixer.conv1d.weight", 0) - innerWidth) / 2,
      d_conv: size("mixer.conv1d.weight", 2),
      headdim,
      rmsnorm: has("mixer.norm.weight"),
    };
  };
  return {
    d_model: width,
    d_intermediate: has("mlp.fc2.weight") ? size("mlp.fc2.weight", 1) : 0,
    n_layer: layerCount,
    vocab_size: vocabularySize,
    pad_vocab_size_multiple: 1,
    ssm_cfg: { ...mixer(), expand: innerWidth / width },
  };
}
