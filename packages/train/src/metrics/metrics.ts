// What a run measures, record by record, and what takes such records. Files and terminals are elsewhere.

/** One optimizer step. */
export interface StepRecord {
  readonly type: "step";
  /** Steps done, this one included. */
  readonly step: number;
  /** Tokens trained on so far. */
  readonly tokens: number;
  /** Mean cross-entropy of the step's batch, nats a token; NaN where the step was not finite. */
  readonly loss: number;
  /** That of the step, by the schedule. */
  readonly learningRate: number;
  /** Norm of all gradients before clipping. */
  readonly gradNorm: number;
  /** Of the steps since the record before. */
  readonly tokensPerSecond: number;
  /** Seconds of training so far, those before a resume included. */
  readonly elapsedSeconds: number;
  /** Steps so far that changed nothing because they were not finite. */
  readonly skipped: number;
}

/** One held-out loss. */
export interface EvaluationRecord {
  readonly type: "evaluation";
  /** Steps done. */
  readonly step: number;
  /** Tokens trained on so far. */
  readonly tokens: number;
  /** Seconds of training so far. */
  readonly elapsedSeconds: number;
  /** Nats a token. */
  readonly heldOutLoss: number;
  /** Comparable between tokenizers; absent where the data has no tokenizer to count bytes with. */
  readonly bitsPerByte?: number;
  /** What else was measured at this step, by name, as "niah accuracy". */
  readonly measures?: Readonly<Record<string, number>>;
}

/** A prompt continued by the model. */
export interface SampleRecord {
  readonly type: "sample";
  /** Steps done. */
  readonly step: number;
  /** What the sample goes on from. */
  readonly prompt: string;
  /** The continuation, without the prompt. */
  readonly text: string;
}

/** Something that went wrong and did not end the run. */
export interface WarningRecord {
  readonly type: "warning";
  /** Steps done. */
  readonly step: number;
  /** A sentence for people. */
  readonly message: string;
}

/** Whatever a run tells; `type` says which. */
export type MetricsRecord = StepRecord | EvaluationRecord | SampleRecord | WarningRecord;

/** Something that takes records: a file, a progress line, a chart. */
export interface MetricsSink {
  /** Called once before the first record. Records of later steps, left by an earlier run, are dropped. */
  start?(step: number): void | Promise<void>;
  /** Takes one record; the run waits for it. */
  write(record: MetricsRecord): void | Promise<void>;
  /** Called before a checkpoint is written: what was given so far must survive a crash after it. */
  flush?(): void | Promise<void>;
  /** Called once, when the run has ended in any way. */
  close?(): void | Promise<void>;
}

/** One record as a line of JSON, without the line end. NaN and infinities become null, which JSON can hold. */
export function metricsLine(record: MetricsRecord): string {
  return JSON.stringify(record);
}

/** The record of a line, or undefined where the line is none, such as a half-written last line. */
export function parseMetricsLine(line: string): MetricsRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || !("type" in value) || !("step" in value)) return undefined;
  const { type } = value;
  if (type === "sample" || type === "warning") return value as SampleRecord | WarningRecord;
  if (type !== "step" && type !== "evaluation") return undefined;
  // Numbers that are not finite were written as null.
  const entries = Object.entries(value).map(([name, item]) => [name, item === null ? Number.NaN : item]);
  return Object.fromEntries(entries) as StepRecord | EvaluationRecord;
}
