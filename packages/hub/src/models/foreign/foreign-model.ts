// Models in the configuration and parameter names of other code, transformers foremost, read as models of ours.

import { CheckpointError, ConfigError, type LanguageModel, type ModelConfig } from "@sisa/core";
import { falconH1 } from "./falcon-h1.ts";
import { forgettingTransformer } from "./forgetting-transformer.ts";
import { hymba } from "./hymba.ts";
import { jamba } from "./jamba.ts";
import { mamba, mamba2 } from "./mamba.ts";
import { isMambaSsm, mambaSsm } from "./mamba-ssm.ts";

/** Where a parameter of ours is found, and what has to be done to it. */
export interface ForeignTensor {
  /** Names in the file; the elements of several follow each other. */
  readonly names: readonly string[];
  /** How many rows they have together, where that is not as many as ours. */
  readonly rows?: number;
  /** For each row of ours, the row of the file: for parameters of other order, or that are a part. */
  readonly rowOf?: ((row: number) => number) | undefined;
  /** Factor of each row, where the file keeps one beside the weights. */
  readonly factorOf?: ((row: number) => number) | undefined;
}

/** A model as the files of other code describe it: its configuration here, and where its parameters lie there. */
export interface ForeignModel {
  /** The same model in our terms. */
  readonly config: ModelConfig;
  /** Where a parameter lies. @param name of ours @throws CheckpointError for one that the other code does not have */
  tensorFor(name: string): ForeignTensor;
}

export type Json = Readonly<Record<string, unknown>>;

const readers: { readonly [modelType: string]: (fields: ForeignConfig) => ForeignModel } = {
  falcon_h1: falconH1,
  "forgetting_transformer-project_fox": forgettingTransformer,
  hymba,
  jamba,
  mamba,
  mamba2,
};

/** Values of `model_type` that are known beside our own. */
export const foreignModelTypes = Object.keys(readers);

/**
 * A model described by a config.json of transformers or of mamba_ssm; undefined for a `model_type` that is not in
 * `foreignModelTypes`.
 * @throws ConfigError where something in it is not known here, by name
 */
export function foreignModel(json: Json): ForeignModel | undefined {
  if (isMambaSsm(json)) return mambaSsm(new ForeignConfig({ ...json, model_type: "mamba_ssm" }));
  const reader = Object.hasOwn(readers, String(json.model_type)) ? readers[String(json.model_type)] : undefined;
  return reader?.(new ForeignConfig(json));
}

/** Fields of a config.json, each checked as it is read. */
export class ForeignConfig {
  readonly json: Json;

  constructor(json: Json) {
    this.json = json;
  }

  number(name: string, fallback?: number): number {
    const value = this.json[name] ?? fallback;
    if (typeof value === "number") return value;
    throw new ConfigError(`config.json: ${name} must be a number, got ${JSON.stringify(value)}`);
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.json[name] ?? fallback;
    if (typeof value === "boolean") return value;
    throw new ConfigError(`config.json: ${name} must be true or false, got ${JSON.stringify(value)}`);
  }

  numbers(name: string, count: number): readonly number[] {
    const value: unknown = this.json[name] ?? new Array<number>(count).fill(1);
    if (Array.isArray(value) && value.length === count && value.every((entry) => typeof entry === "number"))
      return value;
    throw new ConfigError(`config.json: ${name} must be ${count} numbers, got ${JSON.stringify(value)}`);
  }

  /** @throws ConfigError unless a field that changes what is computed is as it is here, or absent */
  expect(name: string, ...known: readonly unknown[]): void {
    const value = this.json[name] ?? known[0];
    if (!known.includes(value)) {
      const values = known.map((entry) => JSON.stringify(entry)).join(" or ");
      throw new ConfigError(
        `config.json: ${this.json.model_type} with ${name} ${JSON.stringify(value)} is not known, only ${values}`,
      );
    }
  }
}

/** "layers.3.W_Q.weight" as 3 and "W_Q.weight"; undefined for parameters outside of layers. */
export function partsOf(name: string): { readonly layer: number; readonly rest: string } | undefined {
  const found = /^layers\.(\d+)\.(.*)$/.exec(name);
  return found === null ? undefined : { layer: Number(found[1]), rest: found[2] ?? "" };
}

/** Parameters outside of layers, as most models there have them. */
export const outsideNames: Readonly<Record<string, string>> = {
  "embed.weight": "model.embed_tokens.weight",
  "final_norm.weight": "model.final_layernorm.weight",
  "lm_head.weight": "lm_head.weight",
};

/** Parameters of a layer's attention. */
export const attentionNames: Readonly<Record<string, string>> = {
  "attn_norm.weight": "input_layernorm.weight",
  "W_Q.weight": "self_attn.q_proj.weight",
  "W_K.weight": "self_attn.k_proj.weight",
  "W_V.weight": "self_attn.v_proj.weight",
  "W_O.weight": "self_attn.o_proj.weight",
};

/** Parameters of a layer's dense feed-forward. */
export const denseNames: Readonly<Record<string, string>> = {
  "ffn_norm.weight": "pre_ff_layernorm.weight",
  "ffn.w_gate.weight": "feed_forward.gate_proj.weight",
  "ffn.w_up.weight": "feed_forward.up_proj.weight",
  "ffn.w_down.weight": "feed_forward.down_proj.weight",
};

/** For a row of heads whose neighbours turn together, the row where channels i and i + half of a head do. */
export function halvesOfHeads(headWidth: number): (row: number) => number {
  return (row) => {
    const channel = row % headWidth;
    return row - channel + (channel % 2) * (headWidth / 2) + Math.floor(channel / 2);
  };
}

/** Where state space models keep their parameters: layers under "backbone.", mixers as "mixer.". */
export function backboneTensor(
  modelType: string,
  known: { readonly embedding: string; readonly layer: Readonly<Record<string, ForeignTensor>> },
): ForeignModel["tensorFor"] {
  const outside: Readonly<Record<string, string>> = {
    "embed.weight": known.embedding,
    "final_norm.weight": "backbone.norm_f.weight",
    "lm_head.weight": "lm_head.weight",
  };
  return (name) => {
    const parts = partsOf(name);
    if (parts === undefined) return { names: [outside[name] ?? unknownParameter(modelType, name)] };
    const tensor = known.layer[parts.rest] ?? { names: [parts.rest.replace(/^mamba\./, "mixer.")] };
    return { ...tensor, names: tensor.names.map((own) => `backbone.layers.${parts.layer}.${own}`) };
  };
}

/** @throws CheckpointError for a parameter that the other code does not have */
export function unknownParameter(modelType: string, name: string): never {
  throw new CheckpointError(`${modelType} has no parameter for ${name}`);
}

/** A parameter of ours, of this shape, from the values in the file, row major. */
export function fromForeign(tensor: ForeignTensor, values: Float32Array, shape: readonly number[]): Float32Array {
  const { rowOf = (row) => row, factorOf } = tensor;
  if (!tensor.rowOf && !factorOf) return values;
  const [rows = 1, ...inner] = shape;
  const width = inner.reduce((a, b) => a * b, 1);
  const result = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    const factor = factorOf?.(row) ?? 1;
    const own = values.subarray(rowOf(row) * width, (rowOf(row) + 1) * width);
    for (let i = 0; i < width; i++) result[row * width + i] = factor * (own[i] ?? 0);
  }
  return result;
}

/** Names in the file of all parameters of a model. */
export function foreignNames(foreign: ForeignModel, model: LanguageModel): ReadonlySet<string> {
  return new Set(Object.keys(model.parameters).flatMap((name) => foreign.tensorFor(name).names));
}
