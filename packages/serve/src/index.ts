// The inference engine. It runs in any JavaScript runtime; the HTTP server is in ./node.ts.

export { Admission, Engine, type EngineCounts, type EngineObserver, type EngineOptions } from "./engine/engine.ts";
export type { Generation } from "./engine/generation.ts";
export {
  ContextLengthError,
  type FinishReason,
  type GenerationEvent,
  type GenerationRequest,
  type PromptResult,
  QueueFullError,
  ShuttingDownError,
} from "./engine/request.ts";
export type { TokenScore } from "./engine/scores.ts";
export { StopMatcher } from "./engine/stop-matcher.ts";
