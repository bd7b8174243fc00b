// Losses over steps: each step faintly, a running mean on top, held-out losses as points.

import type { StepRecord } from "@sisa/train";
import { useEffect, useRef, useState } from "preact/hooks";
import { modelLabels, phase, setup, slots } from "../state.ts";

const height = 300;
const margin = { top: 16, right: 108, bottom: 32, left: 40 };

/** Bits a byte of a guess among all 256. */
const mostBits = 8;

/** Weight that a step has left in the running mean after the next. */
const smoothing = 0.6;

export function LossChart() {
  const [pointer, setPointer] = useState<number | undefined>(undefined);
  const figure = useRef<HTMLElement>(null);
  const width = useWidth(figure);
  const trained = slots.value.filter(({ name }) => name !== "opened");
  const lines = trained.map((slot) => ({
    name: slot.name,
    raw: slot.steps.value.map(bitsOf),
    mean: runningMean(slot.steps.value.map(bitsOf)),
    heldOut: slot.evaluations.value.map(({ step, heldOutLoss }) => [step, heldOutLoss / Math.LN2] as const),
  }));
  const longest = Math.max(0, ...lines.map(({ raw }) => raw.length));
  const lastStep = phase.value === "done" ? longest : Math.max(longest, Math.min(setup.value.steps, longest * 2), 10);
  const lowest = Math.floor(Math.min(mostBits - 1, ...lines.flatMap(({ raw }) => raw.filter(Number.isFinite))));
  const x = (step: number) =>
    margin.left + ((step - 1) / Math.max(1, lastStep - 1)) * (width - margin.left - margin.right);
  const y = (bits: number) =>
    margin.top + ((mostBits - Math.min(bits, mostBits)) / (mostBits - lowest)) * (height - margin.top - margin.bottom);
  const step = pointer === undefined ? undefined : Math.min(longest, Math.max(1, pointer));
  const ends = spread(lines.map(({ mean }) => y(mean.at(-1) ?? mostBits)));

  if (longest === 0) return <Empty />;
  return (
    <figure class="loss" ref={figure}>
      <figcaption>Loss, bits per byte</figcaption>
      <svg
        viewBox={`0 0 ${width} ${height}`}
        role="img"
        aria-label={`Loss after ${longest} steps: ${lines.map(({ name, mean }) => `${modelLabels[name]} ${mean.at(-1)?.toFixed(2) ?? "none"}`).join(", ")} bits per byte`}
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const at = ((event.clientX - box.left) / box.width) * width;
          const part = (at - margin.left) / (width - margin.left - margin.right);
          setPointer(Math.round(1 + part * (lastStep - 1)));
        }}
        onPointerLeave={() => setPointer(undefined)}
      >
        {range(lowest, mostBits).map((bits) => (
          <g key={bits} class="grid">
            <line x1={margin.left} x2={width - margin.right} y1={y(bits)} y2={y(bits)} />
            <text x={margin.left - 8} y={y(bits) + 4} text-anchor="end">
              {bits}
            </text>
          </g>
        ))}
        {stepTicks(lastStep).map((tick) => (
          <text key={tick} class="tick" x={x(tick)} y={height - 10} text-anchor="middle">
            {tick}
          </text>
        ))}
        {lines.map(({ name, raw, mean, heldOut }, index) => (
          <g key={name} class={`line ${name}`}>
            <path class="raw" d={path(raw, x, y)} />
            <path class="mean" d={path(mean, x, y)} />
            {heldOut.map(([at, bits]) => (
              <circle key={at} cx={x(at)} cy={y(bits)} r={4} />
            ))}
            {mean.length === 0 ? null : (
              <text x={width - margin.right + 10} y={(ends[index] ?? 0) + 4}>
                {modelLabels[name]}
              </text>
            )}
          </g>
        ))}
        {step === undefined ? null : (
          <g class="pointer">
            <line x1={x(step)} x2={x(step)} y1={margin.top} y2={height - margin.bottom} />
          </g>
        )}
      </svg>
      <p class="reading">
        {step === undefined
          ? "Line: mean of recent steps. Points: text held out from training."
          : `Step ${step}: ${lines.map(({ name, raw }) => `${modelLabels[name]} ${raw[step - 1]?.toFixed(2) ?? "–"}`).join(", ")}`}
      </p>
    </figure>
  );
}

/** Width of an element in CSS pixels, so that a chart's letters keep their size. */
function useWidth(ref: { readonly current: HTMLElement | null }): number {
  const [width, setWidth] = useState(640);
  const element = ref.current;
  useEffect(() => {
    if (element === null) return;
    const observer = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 640));
    observer.observe(element);
    return () => observer.disconnect();
  }, [element]);
  return width;
}

function Empty() {
  return (
    <div class="empty">
      <svg viewBox="0 0 240 90" aria-hidden="true">
        <path class="sisa" d="M8 10C40 58 80 70 232 76" />
        <path class="transformer" d="M8 10C46 46 92 60 232 66" />
      </svg>
      <p>
        {phase.value === "preparing"
          ? "Compiling both models …"
          : "Press “Train both”: the losses of the two models appear here, step by step."}
      </p>
    </div>
  );
}

export function bitsOf({ loss }: Pick<StepRecord, "loss">): number {
  return loss / Math.LN2;
}

/** Exponential mean from the first value on, without the pull towards 0. */
export function runningMean(values: readonly number[]): number[] {
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    if (Number.isFinite(value)) {
      sum = smoothing * sum + value;
      weight = smoothing * weight + 1;
    }
    return weight === 0 ? Number.NaN : sum / weight;
  });
}

function path(values: readonly number[], x: (step: number) => number, y: (bits: number) => number): string {
  let pen = "M";
  return values
    .map((value, index) => {
      if (!Number.isFinite(value)) {
        pen = "M";
        return "";
      }
      const command = `${pen}${x(index + 1).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
      return command;
    })
    .join("");
}

/** About five round numbers of steps. */
export function stepTicks(last: number): number[] {
  const rough = last / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = Math.max(1, ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power);
  return range(1, Math.floor(last / unit)).map((index) => index * unit);
}

function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
}

/** Moves labels apart that would lie on each other. */
function spread(places: readonly number[]): number[] {
  const [a = 0, b = a] = places;
  const missing = Math.max(0, 18 - Math.abs(a - b)) / 2;
  return a <= b ? [a - missing, b + missing] : [a + missing, b - missing];
}
