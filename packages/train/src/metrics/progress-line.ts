// The progress of a run for people: one line that is rewritten on a terminal, an occasional plain line elsewhere.
// It writes to whatever it is given, and reads time only from the records.
import type { MetricsRecord, MetricsSink, StepRecord } from "./metrics.ts";

/** Where the line goes. A Node stream such as process.stderr fits. */
export interface ProgressOutput {
  /** Takes text as it comes; what it returns is not looked at. */
  write(text: string): unknown;
  /** True where a line can be rewritten. */
  readonly isTTY?: boolean;
  /** Width of the terminal. */
  readonly columns?: number;
}

/** What the line shows beside the records. */
export interface ProgressOptions {
  /** Steps of the whole run, for share and remaining time. */
  readonly totalSteps: number;
  /** Shown first, as in "sisa 5m". Default: nothing. */
  readonly name?: string;
  /** Where lines cannot be rewritten: seconds between two lines, default 10. */
  readonly intervalSeconds?: number;
}

/** How much of the older loss the shown loss keeps with each step. */
const smoothing = 0.95;

/** A sink that shows step, share, smoothed loss, tokens a second, elapsed and remaining time. */
export function progressLine(output: ProgressOutput, options: ProgressOptions): MetricsSink {
  const { totalSteps, intervalSeconds = 10 } = options;
  const prefix = options.name === undefined ? "" : `${options.name}  `;
  let smoothed = 0;
  let weight = 0;
  let shownAt: number | undefined;
  let last: StepRecord | undefined;
  let open = false;

  function endLine(): void {
    if (open) output.write("\n");
    open = false;
  }

  function lineOf(record: StepRecord): string {
    const percent = Math.floor((100 * record.step) / totalSteps);
    const tokensPerStep = record.tokens / record.step;
    const remaining = ((totalSteps - record.step) * tokensPerStep) / record.tokensPerSecond;
    const parts = [
      `step ${record.step}/${totalSteps} (${percent}%)`,
      weight > 0 ? `loss ${(smoothed / weight).toFixed(3)}` : "loss -",
      `${grouped(record.tokensPerSecond)} tokens/s`,
      `elapsed ${clock(record.elapsedSeconds)}`,
      `left ${clock(remaining)}`,
    ];
    if (record.skipped > 0) parts.push(`skipped ${record.skipped}`);
    return prefix + parts.join("  ");
  }

  return {
    write(record: MetricsRecord): void {
      if (record.type === "evaluation") {
        endLine();
        const bits = record.bitsPerByte === undefined ? "" : ` (${record.bitsPerByte.toFixed(3)} bits/byte)`;
        const measures = Object.entries(record.measures ?? {}).map(([name, value]) => `, ${name} ${value.toFixed(4)}`);
        output.write(
          `${prefix}step ${record.step}: held-out loss ${record.heldOutLoss.toFixed(4)}${bits}${measures.join("")}\n`,
        );
        return;
      }
      if (record.type === "sample") {
        endLine();
        output.write(
          `${prefix}step ${record.step}: ${JSON.stringify(record.prompt)} -> ${JSON.stringify(record.text)}\n`,
        );
        return;
      }
      if (record.type === "warning") {
        endLine();
        output.write(`${prefix}step ${record.step}: warning: ${record.message}\n`);
        return;
      }
      last = record;
      if (Number.isFinite(record.loss)) {
        smoothed = smoothing * smoothed + (1 - smoothing) * record.loss;
        weight = smoothing * weight + (1 - smoothing);
      }
      if (output.isTTY === true) {
        // One column stays free: a full line wraps on some terminals, and could not be rewritten.
        const text = lineOf(record).slice(0, Math.max(20, (output.columns ?? 80) - 1));
        output.write(`\r${text}\x1b[K`);
        open = true;
      } else if (
        shownAt === undefined ||
        record.elapsedSeconds - shownAt >= intervalSeconds ||
        record.step === totalSteps
      ) {
        output.write(`${lineOf(record)}\n`);
        shownAt = record.elapsedSeconds;
      }
    },
    close(): void {
      if (output.isTTY !== true && last !== undefined && shownAt !== last.elapsedSeconds) {
        output.write(`${lineOf(last)}\n`);
        shownAt = last.elapsedSeconds;
      }
      endLine();
    },
  };
}

/** Seconds as 0:07, 12:34 or 1:02:03; "-" where unknown. */
export function clock(seconds: number): string {
  if (!Number.isFinite(seconds)) return "-";
  const whole = Math.round(seconds);
  const pad = (value: number): string => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** A whole number with commas: 12,345. */
export function grouped(value: number): string {
  return Number.isFinite(value)
    ? Math.round(value)
        .toString()
        .replace(/\B(?=(\d{3})+$)/g, ",")
    : "-";
}
