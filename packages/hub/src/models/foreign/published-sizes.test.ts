// Configurations as they were published, at their full sizes. Shapes need no weights; how many tensors and parameters there
// are was counted by transformers 5.18 (Jamba's experts, which it joins in memory, one by one as its files have them).

import { languageModel, parameterCount } from "@sisa/core";
import { expect, it } from "vitest";
import { foreignModel, foreignNames } from "./foreign-model.ts";

const mambaSsm = { rms_norm: true, residual_in_fp32: true, fused_add_norm: true, vocab_size: 50277 };

const published: Readonly<
  Record<string, { config: Readonly<Record<string, unknown>>; tensors: number; parameters: number }>
> = {
  "state-spaces/mamba-130m-hf": {
    config: {
      ...{ architectures: ["MambaForCausalLM"], model_type: "mamba", d_model: 768, n_layer: 24, ssm_cfg: {} },
      ...{ hidden_size: 768, num_hidden_layers: 24, state_size: 16, conv_kernel: 4, expand: 2, time_step_rank: 48 },
      ...{ intermediate_size: 1536, d_inner: 1536, hidden_act: "silu", use_bias: false, use_conv_bias: true },
      ...{ layer_norm_epsilon: 1e-5, rms_norm: true, residual_in_fp32: true, vocab_size: 50280 },
    },
    tensors: 242,
    parameters: 129_135_360,
  },
  "state-spaces/mamba-2.8b-slimpj": {
    config: { ...mambaSsm, d_model: 2560, n_layer: 64, ssm_cfg: {}, pad_vocab_size_multiple: 8 },
    tensors: 642,
    parameters: 2_768_345_600,
  },
  "state-spaces/mamba2-130m": {
    config: {
      ...{ ...mambaSsm, d_model: 768, d_intermediate: 0, n_layer: 24, ssm_cfg: { layer: "Mamba2" } },
      ...{ attn_layer_idx: [], attn_cfg: {}, pad_vocab_size_multiple: 16, tie_embeddings: true },
    },
    tensors: 218,
    parameters: 128_989_632,
  },
  "mistralai/Mamba-Codestral-7B-v0.1": {
    config: {
      ...{ model_type: "mamba2", hidden_size: 4096, num_hidden_layers: 64, num_heads: 128, head_dim: 64, n_groups: 8 },
      ...{ state_size: 128, conv_kernel: 4, expand: 2, chunk_size: 256, hidden_act: "silu", vocab_size: 32768 },
      ...{ use_bias: false, use_conv_bias: true, layer_norm_epsilon: 1e-5, tie_word_embeddings: false },
    },
    tensors: 579,
    parameters: 7_285_403_648,
  },
  "tiiuae/Falcon-H1-7B-Base": {
    config: {
      ...{ model_type: "falcon_h1", hidden_size: 3072, intermediate_size: 12288, num_hidden_layers: 44 },
      ...{ num_attention_heads: 12, num_key_value_heads: 2, head_dim: 128, vocab_size: 130049, rms_norm_eps: 1e-5 },
      ...{ max_position_embeddings: 8192, rope_theta: 1e11, tie_word_embeddings: false, attention_bias: false },
      ...{ mlp_bias: false, projectors_bias: false, mamba_use_mlp: true, mamba_expand: 2, mamba_chunk_size: 256 },
      ...{ mamba_d_ssm: 3072, mamba_n_heads: 24, mamba_d_head: 128, mamba_d_state: 256, mamba_n_groups: 1 },
      ...{ mamba_d_conv: 4, mamba_conv_bias: true, mamba_proj_bias: false, mamba_rms_norm: true },
      ...{
        mamba_norm_before_gate: false,
        embedding_multiplier: 5.656854249492381,
        lm_head_multiplier: 0.013020833333333334,
      },
      ...{
        attention_in_multiplier: 1,
        attention_out_multiplier: 0.10416666666666667,
        key_multiplier: 0.030690398488999456,
      },
      ...{ ssm_in_multiplier: 0.4166666666666667, ssm_out_multiplier: 0.11785113019775793 },
      ssm_multipliers: [0.3535533905932738, 0.25, 0.1767766952966369, 0.5, 0.3535533905932738],
      mlp_multipliers: [0.2946278254943948, 0.032552083333333336],
    },
    tensors: 751,
    parameters: 7_585_654_880,
  },
  "ai21labs/Jamba-v0.1": {
    config: {
      ...{ model_type: "jamba", hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32, vocab_size: 65536 },
      ...{ num_attention_heads: 32, num_key_value_heads: 8, attn_layer_period: 8, attn_layer_offset: 4 },
      ...{ expert_layer_period: 2, expert_layer_offset: 1, num_experts: 16, num_experts_per_tok: 2 },
      ...{ mamba_d_state: 16, mamba_d_conv: 4, mamba_expand: 2, mamba_dt_rank: 256, mamba_conv_bias: true },
      ...{ mamba_proj_bias: false, hidden_act: "silu", rms_norm_eps: 1e-6, max_position_embeddings: 262144 },
      ...{ tie_word_embeddings: false },
    },
    tensors: 1251,
    parameters: 51_570_323_328,
  },
};

it.each(Object.entries(published))("%s has its tensors and parameters", (_name, { config, tensors, parameters }) => {
  const foreign = foreignModel(config);
  if (!foreign) throw new Error("the configuration is not known");
  const model = languageModel(foreign.config);
  expect(parameterCount(model)).toBe(parameters);
  expect(foreignNames(foreign, model).size).toBe(tensors);
});
