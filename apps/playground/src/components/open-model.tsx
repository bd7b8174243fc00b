// Models from disk.

import { useRef } from "preact/hooks";
import { modelLabels, opening, openModel, slots } from "../state.ts";
import "./open-model.css";

export function OpenModel() {
  const folder = useRef<HTMLInputElement>(null);
  const files = useRef<HTMLInputElement>(null);
  const opened = slots.value.find(({ name }) => name === "opened")?.facts.value;
  const take = (input: HTMLInputElement) => {
    void openModel([...(input.files ?? [])]);
    // The same choice again is a choice too.
    input.value = "";
  };
  return (
    <section aria-labelledby="open-title">
      <div class="section-head">
        <h2 id="open-title">Open a model</h2>
        <p>A model folder as @sisa/train and Hugging Face tools write it, or a checkpoint of the paper's code.</p>
      </div>
      <div class="card open">
        <div class="controls">
          <button type="button" disabled={opening.value} onClick={() => folder.current?.click()}>
            Choose a folder
          </button>
          <button type="button" disabled={opening.value} onClick={() => files.current?.click()}>
            Choose files
          </button>
          <input
            ref={folder}
            id="model-folder"
            type="file"
            hidden
            {...{ webkitdirectory: true }}
            aria-label="Model folder"
            onChange={(event) => take(event.currentTarget)}
          />
          <input
            ref={files}
            id="model-files"
            type="file"
            hidden
            multiple
            aria-label="Model files"
            onChange={(event) => take(event.currentTarget)}
          />
        </div>
        <p class="muted" aria-live="polite">
          {opening.value
            ? "Reading …"
            : opened === undefined
              ? "Or drop it anywhere on this page. With a .pt file, choose its tokenizer.json too."
              : `${modelLabels.opened}: ${opened.mixers.length} layers (${[...new Set(opened.mixers)].join(", ")}), ${opened.heads} heads, ${opened.parameters.toLocaleString("en")} parameters, form ${opened.form}.`}
        </p>
      </div>
    </section>
  );
}
