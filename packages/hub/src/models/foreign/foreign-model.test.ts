// Folders as transformers writes them, with made-up weights: what is loaded computes what the other code computes, written
// out here in plain loops and in its own names.

import { evaluate, initialize, type LanguageModel } from "@sisa/core";
import { describe, expect, it } from "vitest";
import {
  attends,
  get,
  mamba,
  mamba2,
  normEpsilon,
  part,
  type Row,
  range,
  rms,
  ropeBase,
  silu,
  times,
  type Weights,
} from "../../../../core/src/layers/testing.ts";
import { jsonBytes } from "../../json.ts";
import { writeSafetensors } from "../../safetensors/write.ts";
import { memoryStorage } from "../../storage/memory-storage.ts";
import { byteTokenizer } from "../../tokenizers/byte-tokenizer.ts";
import { loadModelFolder } from "../model-folder.ts";
import { foreignModel } from "./foreign-model.ts";

const V = 257;
const ids = [5, 200, 17, 5, 80, 256, 3, 99, 17, 4];

type Shapes = { readonly [name: string]: readonly number[] };

/** Weights of the other code under its own names, as float32 holds them. */
function madeUp(shapes: Shapes): Weights {
  const initializer = { kind: "normal", deviation: 0.5 } as const;
  const parameters = Object.entries(shapes).map(([name, shape]) => [name, { shape, initializer }]);
  const layer = { parameters: Object.fromEntries(parameters) };
  return Object.fromEntries(Object.entries(initialize(layer, 7)).map(([name, values]) => [name, [...values]]));
}

/** A model from a folder of a config.json and these weights. */
async function loaded(config: Readonly<Record<string, unknown>>, shapes: Shapes, weights: Weights) {
  const storage = memoryStorage();
  await storage.write("config.json", jsonBytes(config));
  const tensors = Object.entries(shapes).map(([name, shape]) => [
    name,
    { dtype: "float32" as const, shape, data: Float32Array.from(weights[name] ?? []) },
  ]);
  await writeSafetensors(storage, "model.safetensors", Object.fromEntries(tensors));
  return await loadModelFolder(storage, { tokenizer: byteTokenizer() });
}

/** Logits in float64, by token. */
function logitsOf(model: LanguageModel, parameters: Readonly<Record<string, Float32Array>>): readonly Row[] {
  const inputs = Object.entries(model.parameters).map(([name, { shape }]) => [
    name,
    { shape, data: Float64Array.from(parameters[name] ?? []) },
  ]);
  const all = { ids: { shape: [1, ids.length], data: Int32Array.from(ids) }, ...Object.fromEntries(inputs) };
  const { logits } = evaluate(model.logitsGraph().bind({ B: 1, T: ids.length }), all, "float64");
  return ids.map((_, t) => Array.from(logits?.data.subarray(t * V, (t + 1) * V) ?? []));
}

const plus = (a: Row, b: Row, factor = 1) => a.map((value, i) => value + factor * get(b, i));
const scaled = (a: Row, factor: number) => a.map((value) => value * factor);
/** Weights under a prefix, without it. */
const under = (w: Weights, prefix: string): Weights =>
  Object.fromEntries(
    Object.entries(w).flatMap(([name, values]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), values]] : [],
    ),
  );
const furthest = (a: readonly Row[], b: readonly Row[]) => {
  const pairs = a.flatMap((row, t) => row.map((value, i) => [value, b[t]?.[i] ?? Number.NaN] as const));
  return Math.max(...pairs.map(([x, y]) => Math.abs(x - y))) / Math.max(...pairs.map(([x]) => Math.abs(x)));
};

const [M, H, G, F] = [8, 2, 1, 12];
const headWidth = M / H;

describe.each([
  ["of one group, as the smaller ones", { mamba_n_groups: 1, mamba_rms_norm: false }],
  [
    "with a norm after the gate, as the largest",
    { mamba_n_groups: 3, mamba_rms_norm: true, mamba_norm_before_gate: false },
  ],
  ["with a norm before it, as by default", { mamba_n_groups: 3, mamba_rms_norm: true }],
])("Falcon-H1 with every multiplier, %s", (_name, ownFields) => {
  const [inner, P, N] = [12, 4, 4];
  const { mamba_n_groups: groups, mamba_rms_norm: hasNorm } = ownFields;
  const channels = inner + 2 * groups * N;
  const config = {
    model_type: "falcon_h1",
    hidden_size: M,
    num_hidden_layers: 2,
    num_attention_heads: H,
    num_key_value_heads: G,
    head_dim: headWidth,
    intermediate_size: F,
    vocab_size: V,
    max_position_embeddings: 64,
    rms_norm_eps: normEpsilon,
    rope_theta: ropeBase,
    tie_word_embeddings: false,
    mamba_d_ssm: inner,
    mamba_d_head: P,
    mamba_d_state: N,
    mamba_d_conv: 4,
    ...ownFields,
    ssm_in_multiplier: 0.7,
    ssm_out_multiplier: 1.3,
    attention_in_multiplier: 0.9,
    attention_out_multiplier: 1.1,
    key_multiplier: 0.6,
    embedding_multiplier: 2.5,
    lm_head_multiplier: 0.4,
    mlp_multipliers: [0.8, 1.7],
    ssm_multipliers: [0.5, 0.75, 1.25, 1.5, 0.9],
  };
  const layerShapes: Shapes = {
    "input_layernorm.weight": [M],
    "pre_ff_layernorm.weight": [M],
    "self_attn.q_proj.weight": [H * headWidth, M],
    "self_attn.k_proj.weight": [G * headWidth, M],
    "self_attn.v_proj.weight": [G * headWidth, M],
    "self_attn.o_proj.weight": [M, H * headWidth],
    "mamba.in_proj.weight": [inner + channels + inner / P, M],
    "mamba.conv1d.weight": [channels, 1, 4],
    "mamba.conv1d.bias": [channels],
    "mamba.dt_bias": [inner / P],
    "mamba.A_log": [inner / P],
    "mamba.D": [inner / P],
    ...(hasNorm ? { "mamba.norm.weight": [inner] } : {}),
    "mamba.out_proj.weight": [M, inner],
    "feed_forward.gate_proj.weight": [F, M],
    "feed_forward.up_proj.weight": [F, M],
    "feed_forward.down_proj.weight": [M, F],
  };
  const shapes: Shapes = {
    "model.embed_tokens.weight": [V, M],
    "model.final_layernorm.weight": [M],
    "lm_head.weight": [V, M],
    ...Object.fromEntries(
      range(2).flatMap((layer) =>
        Object.entries(layerShapes).map(([name, shape]) => [`model.layers.${layer}.${name}`, shape]),
      ),
    ),
  };

  /** Channels i and i + half, which turn together there, as neighbours. */
  const neighbours = (matrix: Row | undefined, heads: number) =>
    range(heads * headWidth).flatMap((row) => {
      const channel = row % headWidth;
      const from = row - channel + (channel % 2) * (headWidth / 2) + Math.floor(channel / 2);
      return part(matrix ?? [], from * M, M);
    });

  function expected(w: Weights): readonly Row[] {
    let x: readonly Row[] = ids.map((id) => scaled(part(w["model.embed_tokens.weight"] ?? [], id * M, M), 2.5));
    for (const layer of range(2)) {
      const own = under(w, `model.layers.${layer}.`);
      const h = x.map((row) => rms(row, own["input_layernorm.weight"]));
      const names = {
        "W_Q.weight": neighbours(own["self_attn.q_proj.weight"], H),
        "W_K.weight": scaled(neighbours(own["self_attn.k_proj.weight"], G), 0.6),
        "W_V.weight": own["self_attn.v_proj.weight"] ?? [],
      };
      const sizes = { width: M, heads: H, keyValueHeads: G, headWidth, normEpsilon };
      const attention = attends(sizes, 0)(
        names,
        h.map((row) => scaled(row, 0.9)),
      );
      // The projection of z, x, B, C and dt, each times its own.
      const sets = groups * N;
      const ends = [inner, 2 * inner, 2 * inner + sets, 2 * inner + 2 * sets, Number.POSITIVE_INFINITY];
      const multipliers = [0.5, 0.75, 1.25, 1.5, 0.9];
      const projection = (own["mamba.in_proj.weight"] ?? []).map(
        (value, i) =>
          value *
          get(
            multipliers,
            ends.findIndex((end) => Math.floor(i / M) < end),
          ),
      );
      const outputNorm = !hasNorm ? "none" : "mamba_norm_before_gate" in ownFields ? "after-gate" : "before-gate";
      const scan = { innerWidth: inner, headWidth: P, stateWidth: N, groups, convWidth: 4, outputNorm } as const;
      const states = mamba2(scan)(
        { ...own, "mamba.in_proj.weight": projection },
        h.map((row) => scaled(row, 0.7)),
      );
      x = x.map((row, t) => {
        const attended = times(own["self_attn.o_proj.weight"], attention[t] ?? []);
        const scanned = times(own["mamba.out_proj.weight"], states[t] ?? []);
        const mixed = plus(plus(row, attended, 1.1), scanned, 1.3);
        const y = rms(mixed, own["pre_ff_layernorm.weight"]);
        const gate = times(own["feed_forward.gate_proj.weight"], y).map((value) => silu(value * 0.8));
        const hidden = times(own["feed_forward.up_proj.weight"], y).map((value, i) => value * get(gate, i));
        return plus(mixed, times(own["feed_forward.down_proj.weight"], hidden), 1.7);
      });
    }
    return x.map((row) => scaled(times(w["lm_head.weight"], rms(row, w["model.final_layernorm.weight"])), 0.4));
  }

  it("computes what its own code computes", async () => {
    const weights = madeUp(shapes);
    const { model, parameters } = await loaded(config, shapes, weights);
    expect(furthest(expected(weights), logitsOf(model, parameters))).toBeLessThan(1e-6);
  });
});

describe("Jamba with four experts, two for each token", () => {
  const [inner, N, steps] = [2 * M, 4, 3];
  const config = {
    model_type: "jamba",
    hidden_size: M,
    num_hidden_layers: 3,
    num_attention_heads: H,
    num_key_value_heads: G,
    intermediate_size: F,
    vocab_size: V,
    max_position_embeddings: 64,
    rms_norm_eps: normEpsilon,
    tie_word_embeddings: false,
    attn_layer_period: 3,
    attn_layer_offset: 1,
    expert_layer_period: 2,
    expert_layer_offset: 1,
    num_experts: 4,
    num_experts_per_tok: 2,
    mamba_d_state: N,
    mamba_d_conv: 4,
    mamba_expand: 2,
    mamba_dt_rank: steps,
  };
  const dense: Shapes = { "gate_proj.weight": [F, M], "up_proj.weight": [F, M], "down_proj.weight": [M, F] };
  const attention: Shapes = {
    "self_attn.q_proj.weight": [M, M],
    "self_attn.k_proj.weight": [G * headWidth, M],
    "self_attn.v_proj.weight": [G * headWidth, M],
    "self_attn.o_proj.weight": [M, M],
  };
  const scan: Shapes = {
    "mamba.in_proj.weight": [2 * inner, M],
    "mamba.conv1d.weight": [inner, 1, 4],
    "mamba.conv1d.bias": [inner],
    "mamba.x_proj.weight": [steps + 2 * N, inner],
    "mamba.dt_proj.weight": [inner, steps],
    "mamba.dt_proj.bias": [inner],
    "mamba.A_log": [inner, N],
    "mamba.D": [inner],
    "mamba.dt_layernorm.weight": [steps],
    "mamba.b_layernorm.weight": [N],
    "mamba.c_layernorm.weight": [N],
    "mamba.out_proj.weight": [M, inner],
  };
  const prefixed = (prefix: string, names: Shapes): Shapes =>
    Object.fromEntries(Object.entries(names).map(([name, shape]) => [prefix + name, shape]));
  const layerShapes = (layer: number): Shapes => ({
    "input_layernorm.weight": [M],
    "pre_ff_layernorm.weight": [M],
    ...(layer === 1 ? attention : scan),
    ...(layer === 1
      ? {
          "feed_forward.router.weight": [4, M],
          ...Object.assign({}, ...range(4).map((expert) => prefixed(`feed_forward.experts.${expert}.`, dense))),
        }
      : prefixed("feed_forward.", dense)),
  });
  const shapes: Shapes = {
    "model.embed_tokens.weight": [V, M],
    "model.final_layernorm.weight": [M],
    "lm_head.weight": [V, M],
    ...Object.assign({}, ...range(3).map((layer) => prefixed(`model.layers.${layer}.`, layerShapes(layer)))),
  };

  function forwardFeed(w: Weights, x: Row): Row {
    const gate = times(w["gate_proj.weight"], x).map(silu);
    return times(
      w["down_proj.weight"],
      times(w["up_proj.weight"], x).map((value, i) => value * get(gate, i)),
    );
  }

  function expected(w: Weights): readonly Row[] {
    let x: readonly Row[] = ids.map((id) => part(w["model.embed_tokens.weight"] ?? [], id * M, M));
    for (const layer of range(3)) {
      const own = under(w, `model.layers.${layer}.`);
      const h = x.map((row) => rms(row, own["input_layernorm.weight"]));
      const names = {
        "W_Q.weight": own["self_attn.q_proj.weight"] ?? [],
        "W_K.weight": own["self_attn.k_proj.weight"] ?? [],
        "W_V.weight": own["self_attn.v_proj.weight"] ?? [],
      };
      const inside =
        layer === 1
          ? attends({ width: M, heads: H, keyValueHeads: G, positions: "none", normEpsilon }, 0)(names, h)
          : mamba({ innerWidth: inner, stateWidth: N, stepWidth: steps, convWidth: 4, normalize: true, normEpsilon })(
              own,
              h,
            );
      const out = own[layer === 1 ? "self_attn.o_proj.weight" : "mamba.out_proj.weight"];
      x = x.map((row, t) => {
        const mixed = plus(row, times(out, inside[t] ?? []));
        const y = rms(mixed, own["pre_ff_layernorm.weight"]);
        if (layer !== 1) return plus(mixed, forwardFeed(under(own, "feed_forward."), y));
        const powers = times(own["feed_forward.router.weight"], y).map(Math.exp);
        const total = powers.reduce((a, b) => a + b, 0);
        const best = range(4).toSorted((a, b) => get(powers, b) - get(powers, a));
        return best.slice(0, 2).reduce<Row>((sum, expert) => {
          const output = forwardFeed(under(own, `feed_forward.experts.${expert}.`), y);
          return plus(sum, output, get(powers, expert) / total);
        }, mixed);
      });
    }
    return x.map((row) => times(w["lm_head.weight"], rms(row, w["model.final_layernorm.weight"])));
  }

  it("computes what its own code computes", async () => {
    const weights = madeUp(shapes);
    const { model, parameters } = await loaded(config, shapes, weights);
    expect(furthest(expected(weights), logitsOf(model, parameters))).toBeLessThan(1e-6);
  });

  it("says which expert is missing", async () => {
    const name = "model.layers.1.feed_forward.experts.3.up_proj.weight";
    const { [name]: _, ...others } = shapes;
    await expect(loaded(config, others, madeUp(others))).rejects.toThrow(name);
  });
});

const hymba = {
  ...{ model_type: "hymba", vocab_size: 257, hidden_size: 16, intermediate_size: 8, num_hidden_layers: 5 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64, num_memory_tokens: 3 },
  ...{ sliding_window: 7, global_attn_idx: [0, 4], kv_reuse_group: [[1, 2, 3]], rope: true, rms_norm_eps: 1e-6 },
};

it("Hymba's windows leave out the token itself, and neighbours share keys", () => {
  const config = foreignModel(hymba)?.config;
  expect(config?.mixers).toEqual(["global", "local", "localAgain", "localAgain", "global"].map((n) => `${n}+mamba`));
  expect(config?.mixerSettings?.localAgain).toMatchObject({ window: 8, keyWidth: 4, headWidth: 8, reuseKeys: true });
  expect(config).toMatchObject({ combination: "mean", metaTokens: 3, tiedHead: false });
});

it.each<[Readonly<Record<string, unknown>>, string]>([
  [{ model_type: "falcon_h1", hidden_act: "gelu" }, 'falcon_h1 with hidden_act "gelu" is not known, only "silu"'],
  [
    { ...hymba, kv_reuse_group: [[1, 3]] },
    "hymba with kv_reuse_group [1,3] is not known, only layers one after another",
  ],
  [{ ...hymba, kq_norm: "rms" }, 'hymba with kq_norm "rms" is not known, only "none" or null'],
  [
    { model_type: "forgetting_transformer-project_fox", fgate_type: "fixed" },
    'forgetting_transformer-project_fox with fgate_type "fixed" is not known, only "full"',
  ],
  [{ d_model: 8, n_layer: 1, attn_layer_idx: [3] }, "mamba_ssm with attn_layer_idx [3] is not known, only []"],
  [{ d_model: 8, n_layer: 1, rms_norm: false }, "mamba_ssm with rms_norm false is not known, only true"],
  [
    { d_model: 8, n_layer: 1, ssm_cfg: { layer: "Mamba3", is_mimo: true } },
    "mamba_ssm Mamba3 with is_mimo true is not known, only false",
  ],
  [{ d_model: 8, n_layer: 1, ssm_cfg: { layer: "S4" } }, "ssm_cfg.layer must be one of Mamba1, Mamba2, Mamba3, got"],
])("refuses what would compute something else, by its name: %j", (config, message) => {
  expect(() => foreignModel(config)).toThrow(message);
});

it("leaves models of other code alone", () => {
  expect(foreignModel({ model_type: "llama" })).toBeUndefined();
});
