// Text in, two models side by side, their losses as they fall.

import type { StepRecord } from "@sisa/train";
import { useRef } from "preact/hooks";
import {
  fail,
  families,
  modelLabels,
  pause,
  phase,
  resume,
  setup,
  slots,
  stop,
  train,
  trainingText,
} from "../state.ts";
import { modelSizes } from "../worker/views.ts";
import { LossChart } from "./loss-chart.tsx";
import "./training-panel.css";

export function TrainingPanel() {
  const busy = phase.value !== "idle" && phase.value !== "done";
  return (
    <section aria-labelledby="train-title">
      <div class="section-head">
        <h2 id="train-title">Train</h2>
        <p>Two models with equally many parameters, the same text, the same batches in the same order.</p>
      </div>
      <div class="train">
        <div class="card source">
          <TextSource disabled={busy} />
          <Settings disabled={busy} />
          <Controls />
        </div>
        <div class="card chart">
          <LossChart />
          <Numbers />
        </div>
      </div>
    </section>
  );
}

function TextSource({ disabled }: { readonly disabled: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  const bytes = new TextEncoder().encode(trainingText.value).length;
  const enough = bytes >= 20 * setup.value.sequenceLength;
  return (
    <div class="field">
      <label for="training-text">Text to learn</label>
      <textarea
        id="training-text"
        rows={9}
        spellcheck={false}
        disabled={disabled}
        value={trainingText.value}
        onInput={(event) => {
          trainingText.value = event.currentTarget.value;
        }}
      />
      <div class="under">
        <span class={enough ? "" : "warn"}>
          {bytes.toLocaleString("en")} bytes{enough ? "" : `; ${20 * setup.value.sequenceLength} or more learn better`}
        </span>
        <button type="button" class="quiet" disabled={disabled} onClick={() => input.current?.click()}>
          Open a text file
        </button>
        <input
          ref={input}
          type="file"
          hidden
          accept="text/*,.md,.txt"
          aria-label="Text file to learn"
          onChange={(event) => {
            const [file] = event.currentTarget.files ?? [];
            file?.text().then((text) => {
              trainingText.value = text;
            }, fail);
          }}
        />
      </div>
    </div>
  );
}

function Settings({ disabled }: { readonly disabled: boolean }) {
  const { size, steps, sequenceLength } = setup.value;
  const change = (part: Partial<typeof setup.value>) => {
    setup.value = { ...setup.value, ...part };
  };
  return (
    <div class="settings">
      <label>
        Layers × width
        <select
          name="size"
          disabled={disabled}
          value={size}
          onChange={(event) => change({ size: event.currentTarget.value as typeof size })}
        >
          {Object.entries(modelSizes).map(([name, { label, width, layers }]) => (
            <option key={name} value={name}>{`${label}, ${layers} × ${width}`}</option>
          ))}
        </select>
      </label>
      <label>
        Steps
        <select
          name="steps"
          disabled={disabled}
          value={steps}
          onChange={(event) => change({ steps: Number(event.currentTarget.value) })}
        >
          {[50, 200, 1000, 5000].map((count) => (
            <option key={count} value={count}>
              {count}
            </option>
          ))}
        </select>
      </label>
      <label>
        Context
        <select
          name="context"
          disabled={disabled}
          value={sequenceLength}
          onChange={(event) => change({ sequenceLength: Number(event.currentTarget.value) })}
        >
          {[64, 128, 256].map((count) => (
            <option key={count} value={count}>{`${count} bytes`}</option>
          ))}
        </select>
      </label>
    </div>
  );
}

function Controls() {
  const ready = slots.value.length > 0 && slots.value.every((slot) => slot.about.value !== undefined);
  switch (phase.value) {
    case "preparing":
      return (
        <div class="controls">
          <button type="button" class="primary" disabled>
            Preparing …
          </button>
        </div>
      );
    case "running":
    case "pausing":
    case "paused":
      return (
        <div class="controls">
          {phase.value === "paused" ? (
            <button type="button" class="primary" onClick={resume}>
              Resume
            </button>
          ) : (
            <button type="button" class="primary" disabled={phase.value === "pausing"} onClick={() => void pause()}>
              {phase.value === "pausing" ? "Finishing the step …" : "Pause"}
            </button>
          )}
          <button type="button" onClick={stop}>
            Stop
          </button>
        </div>
      );
    default:
      return (
        <div class="controls">
          <button type="button" class="primary" disabled={!ready} onClick={() => void train()}>
            {phase.value === "done" ? "Train again" : "Train both"}
          </button>
        </div>
      );
  }
}

/** What the chart shows, as numbers. */
function Numbers() {
  const trained = slots.value.filter(({ name }) => name !== "opened");
  if (trained.every(({ steps }) => steps.value.length === 0)) return null;
  return (
    <table class="numbers">
      <thead>
        <tr>
          <th scope="col">Model</th>
          <th scope="col">Step</th>
          <th scope="col">Training</th>
          <th scope="col">Held out</th>
          <th scope="col">Bytes/s</th>
          <th scope="col">Parameters</th>
        </tr>
      </thead>
      <tbody>
        {families.map((family) => {
          const slot = trained.find(({ name }) => name === family);
          const last = slot?.steps.value.at(-1);
          const heldOut = slot?.evaluations.value.at(-1)?.bitsPerByte;
          return (
            <tr key={family} data-model={family}>
              <th scope="row">
                <i class={`swatch ${family}`} />
                {modelLabels[family]}
              </th>
              <td>{last?.step ?? "–"}</td>
              <td>{last === undefined ? "–" : bits(last.loss)}</td>
              <td>{heldOut === undefined ? "–" : heldOut.toFixed(2)}</td>
              <td>
                {slot === undefined || last === undefined
                  ? "–"
                  : Math.round(recentSpeed(slot.steps.value)).toLocaleString("en")}
              </td>
              <td>{slot?.facts.value?.parameters.toLocaleString("en") ?? "–"}</td>
            </tr>
          );
        })}
      </tbody>
      <caption>
        {trained.map(({ name, warning }) => (warning.value === "" ? "" : `${modelLabels[name]}: ${warning.value}. `))}
        Losses in bits per byte; lower is better.
      </caption>
    </table>
  );
}

function bits(nats: number): string {
  return (nats / Math.LN2).toFixed(2);
}

/** Tokens a second over the last ten steps. */
function recentSpeed(steps: readonly StepRecord[]): number {
  const recent = steps.slice(-10).map(({ tokensPerSecond }) => 1 / tokensPerSecond);
  return recent.length / recent.reduce((sum, seconds) => sum + seconds, 0);
}
