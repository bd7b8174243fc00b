// What a task is: rows to score, what their scores say of each item, and what the items say together.
import type { RowScore, ScoredRow } from "./scorer.ts";

/** Numbers that one item was measured by, by name. */
export type Measures = Readonly<Record<string, number>>;

/** One question to a model. */
export interface TaskItem {
  /** What is scored for it. */
  readonly rows: readonly ScoredRow[];
  /** @param scores of the rows, in their order */
  measure(scores: readonly RowScore[]): Measures;
}

/** A mean over items, and how far it may be off. */
export interface Metric {
  /** The mean. */
  readonly value: number;
  /** Of the value, over the items; NaN below two items. */
  readonly standardError: number;
}

/** A quantity that values are ordered by. */
export interface HeatMapAxis {
  /** What it is. */
  readonly name: string;
  /** In order, as they are written beside the picture. */
  readonly values: readonly string[];
}

/** Values by two quantities, for a picture. */
export interface HeatMap {
  /** What the values are. */
  readonly title: string;
  /** From top to bottom. */
  readonly rows: HeatMapAxis;
  /** From left to right. */
  readonly columns: HeatMapAxis;
  /** values[row][column] */
  readonly values: readonly (readonly number[])[];
}

/** What all items say together. */
export interface TaskSummary {
  /** By name. */
  readonly metrics: Readonly<Record<string, Metric>>;
  /** Of tasks that measure by two quantities. */
  readonly heatMap?: HeatMap;
}

/** Something a model is measured by. */
export interface Task {
  /** As on the command line: "hellaswag", "hellaswag:harness". */
  readonly name: string;
  /** Whose rules these are. */
  readonly protocol: string;
  /** The metric that stands for the task. */
  readonly headline: string;
  /** All of them, in a fixed order. */
  readonly items: readonly TaskItem[];
  /** @param measures of all items, in their order */
  summarize(measures: readonly Measures[]): TaskSummary;
}

/** Mean and standard error of the mean, s / sqrt(n) with s the standard deviation of the sample. */
export function meanOf(values: readonly number[]): Metric {
  const value = values.reduce((sum, item) => sum + item, 0) / values.length;
  const squares = values.reduce((sum, item) => sum + (item - value) ** 2, 0);
  return { value, standardError: Math.sqrt(squares / (values.length - 1) / values.length) };
}

/** The mean of each measure. */
export function meansOf(measures: readonly Measures[]): TaskSummary {
  const names = Object.keys(measures[0] ?? {});
  return {
    metrics: Object.fromEntries(
      names.map((name) => [name, meanOf(measures.map((measure) => measure[name] ?? Number.NaN))]),
    ),
  };
}

/**
 * A sum divided by another, as nats a token over rows of unequal length.
 * Standard error of the ratio estimator (Cochran 1977, "Sampling Techniques", 6.4).
 */
export function ratioOf(parts: readonly number[], wholes: readonly number[]): Metric {
  const whole = wholes.reduce((sum, item) => sum + item, 0);
  const value = parts.reduce((sum, item) => sum + item, 0) / whole;
  const squares = parts.reduce((sum, part, index) => sum + (part - value * (wholes[index] ?? 0)) ** 2, 0);
  const count = parts.length;
  return { value, standardError: Math.sqrt((squares * count) / (count - 1)) / whole };
}

/** A metric under a function: the error is carried on to first order. */
export function transformed(metric: Metric, of: (value: number) => number, slope: (value: number) => number): Metric {
  return { value: of(metric.value), standardError: Math.abs(slope(metric.value)) * metric.standardError };
}
