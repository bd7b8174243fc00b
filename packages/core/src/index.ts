// Everything @sisa/core offers. Nothing here touches a device, a file or a clock.

export * from "./autodiff/value-and-grad.ts";
export * from "./backend.ts";
export * from "./device-tensor.ts";
export * from "./dim.ts";
export {
  allocate,
  bytesOf,
  type DType,
  fromBfloat16Bits,
  fromFloat16Bits,
  type Kind,
  kindOf,
  roundTo,
  type TypedArray,
  toBfloat16Bits,
  toFloat16Bits,
} from "./dtype.ts";
export * from "./errors.ts";
export { alignGates, takeFilled } from "./graph/align-gates.ts";
export {
  Graph,
  type GraphInputs,
  type GraphOutputs,
  inputOp,
  inputTensor,
  placeNode,
  rebuild,
  rewrite,
  trace,
} from "./graph/graph.ts";
export { type Hoisted, hoistConstants } from "./graph/hoist-constants.ts";
export * from "./graph/op.ts";
export * from "./graph/passes.ts";
export {
  applyPrecision,
  inBfloat16,
  inPrecision,
  narrowDType,
  type Precision,
  precisions,
  shadowName,
  takeShadows,
} from "./graph/precision.ts";
export { type AnyTensor, isTensor, Node, type Tensor } from "./graph/tensor.ts";
export { verify } from "./graph/verify.ts";
export {
  AttentionMixer,
  type AttentionMixerSizes,
  type AttentionSettings,
  alibiSlopes,
} from "./layers/attention-mixer.ts";
export { Block, type BlockParts, type Combination, type FeedForward } from "./layers/block.ts";
export { GatedFeedForward, type GatedFeedForwardSizes } from "./layers/gated-feed-forward.ts";
export * from "./layers/layer.ts";
export { MambaMixer, type MambaMixerSizes, type MambaSettings } from "./layers/mamba-mixer.ts";
export { Mamba2Mixer, type Mamba2MixerSizes, type Mamba2Settings } from "./layers/mamba2-mixer.ts";
export { Mamba3Mixer, type Mamba3MixerSizes, type Mamba3Settings } from "./layers/mamba3-mixer.ts";
export {
  type KeyValues,
  type Mixer,
  type MixerCache,
  type MixerContext,
  type MixerOutput,
  mergeHeads,
  splitHeads,
} from "./layers/mixer.ts";
export { RoutedFeedForward, type RoutedFeedForwardSizes } from "./layers/routed-feed-forward.ts";
export { SisaMixer, type SisaMixerSizes, type SisaSettings } from "./layers/sisa-mixer.ts";
export { type AttentionTermsGraph, attentionTermsGraph } from "./models/attention-terms.ts";
export {
  checkModelConfig,
  type FeedForwardKind,
  feedForwardOfLayer,
  type ModelConfig,
  mixerKindsOf,
  mixersOfLayer,
} from "./models/config.ts";
export { modelConfigFromJson, modelConfigToJson } from "./models/config-json.ts";
export { Decoder, type DecoderOptions } from "./models/decoder.ts";
export { type GenerateOptions, generate } from "./models/generate.ts";
export {
  type DecodeGraph,
  LanguageModel,
  type LogitsGraph,
  type LossGraph,
  languageModel,
  type ScoreGraph,
  type StepGraph,
} from "./models/language-model.ts";
export { isMixerKind, type MixerKind, type MixerSettings, mixerKinds } from "./models/mixers.ts";
export {
  type Family,
  ffnWidthFor,
  type PresetOverrides,
  type PresetSize,
  parameterCountOf,
  preset,
  presetFamilies,
  presetSizes,
} from "./models/presets.ts";
export {
  checkSampling,
  checkToken,
  likeliest,
  Sampler,
  type SamplingOptions,
  sampleToken,
  type TokenChoice,
} from "./models/sampler.ts";
export * from "./ops/index.ts";
export { RandomStream } from "./random.ts";
export {
  boundSymbols,
  checkConstants,
  checkData,
  checkInputs,
  checkState,
  type ReferenceOptions,
  reference,
} from "./reference/backend.ts";
export { emptyArray, evaluate, evaluateNode, type ReferenceMode } from "./reference/evaluate.ts";
export { type ConstantsHost, type GivenConstants, SharedConstants } from "./shared-constants.ts";
export { bool, type DTypeOfKind, f32, i32, type KindOfSpec, specText, type TensorSpec } from "./spec.ts";

import type { Op } from "./graph/op.ts";
import type * as operations from "./ops/index.ts";

type Operations = typeof operations;

/** Names of all operations of this package. Backends type their table of lowerings as exhaustive over it. */
export type OpName = {
  [K in keyof Operations]: Operations[K] extends Op<infer Name> ? Name : never;
}[keyof Operations];
