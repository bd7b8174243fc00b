// Public entry, safe in browsers: nothing here reaches a `node:` import. Files are in "@sisa/train/node".
export {
  type CheckpointMetadata,
  CheckpointMismatchError,
  isCheckpoint,
  type OpenCheckpoint,
  openCheckpoint,
} from "./checkpoint.ts";
export { checkpointName, findCheckpoint, listCheckpoints } from "./checkpoint-folder.ts";
export {
  checkPrecision,
  configFields,
  configHelp,
  modelConfigOf,
  type PresetChoice,
  parseTrainingConfig,
  settingsOf,
  type TrainingConfig,
  type TrainingConfigInput,
  withOverrides,
} from "./config/config.ts";
export type { Field, FieldTable } from "./config/field.ts";
export { type ResolvedSettings, resolveSettings, scheduleOf, type TrainingSettings } from "./config/settings.ts";
export { type AddressedField, fieldsOf, flagOf, isRecord, mergeConfig, nearestPath } from "./config/table.ts";
export { type Batch, type BatchPlan, trainingBatch } from "./data/batches.ts";
export {
  type SyntheticKind,
  type SyntheticShape,
  syntheticData,
  syntheticVocabulary,
} from "./data/synthetic.ts";
export { type TextDocument, type TextOptions, textDocuments } from "./data/text-documents.ts";
export { tokenShards } from "./data/token-shards.ts";
export { arraySource, type DataDescription, type TokenSource, type TrainingData } from "./data/training-data.ts";
export {
  type EvaluateOptions,
  type EvaluationLog,
  evaluate,
  type ScoredEntry,
  type TaskResult,
} from "./evaluation/evaluate.ts";
export { parameterFingerprint } from "./evaluation/fingerprint.ts";
export type { ItemFile } from "./evaluation/json-lines.ts";
export { type RowScore, type ScoredRow, Scorer, type ScorerOptions } from "./evaluation/scorer.ts";
export {
  type HeatMap,
  type HeatMapAxis,
  type Measures,
  type Metric,
  meanOf,
  type Task,
  type TaskItem,
  type TaskSummary,
} from "./evaluation/task.ts";
export {
  findTask,
  type TaskDescription,
  type TaskSource,
  taskNames,
  tasks,
} from "./evaluation/tasks.ts";
export { type HeldOutBatches, type HeldOutLoss, readHeldOut, textBytes } from "./held-out.ts";
export { leastTrainingBytes } from "./memory.ts";
export {
  type EvaluationRecord,
  type MetricsRecord,
  type MetricsSink,
  metricsLine,
  parseMetricsLine,
  type SampleRecord,
  type StepRecord,
  type WarningRecord,
} from "./metrics/metrics.ts";
export { type ProgressOptions, type ProgressOutput, progressLine } from "./metrics/progress-line.ts";
export { NotFiniteError } from "./not-finite.ts";
export * from "./optimizer/parameter-groups.ts";
export * from "./optimizer/schedule.ts";
export {
  type ComparedRow,
  type ComparedRun,
  compareRuns,
  comparisonMarkdown,
  comparisonReport,
  type RunValues,
} from "./report/comparison.ts";
export { evaluationReport, metricText } from "./report/evaluation-report.ts";
export { type HeadTable, type HeadValues, halfLifeOf, headTable } from "./report/heads.ts";
export { htmlReport, type ReportOptions, type ReportRun } from "./report/html-report.ts";
export { measureLogDecay } from "./report/measured-decay.ts";
export { type SampleOptions, type TrainingRun, type TrainOptions, train } from "./train.ts";
export { type Advance, type StateTensor, Trainer, type TrainerOptions, type TrainerProgress } from "./trainer.ts";
