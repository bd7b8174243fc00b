// The page from top to bottom.

import { useEffect, useState } from "preact/hooks";
import { AttentionPanel } from "./components/attention-panel.tsx";
import { BackendNote } from "./components/backend-note.tsx";
import { Formula } from "./components/formula.tsx";
import { OpenModel } from "./components/open-model.tsx";
import { SamplePanel } from "./components/sample-panel.tsx";
import { TrainingPanel } from "./components/training-panel.tsx";
import { droppedFiles } from "./dropped-files.ts";
import { error, fail, openModel, phase, start, trainingText } from "./state.ts";

export function App() {
  const [dropping, setDropping] = useState(false);
  useEffect(start, []);
  useEffect(() => listenForDrops(setDropping), []);
  return (
    <div class={dropping ? "page dropping" : "page"}>
      <header>
        <div>
          <h1>
            SISA <span>playground</span>
          </h1>
          <p class="lead">
            Attention scores what two tokens say to each other. SISA adds what a state space model remembers of the
            earlier one, inside the same score. Train both here, in this tab, and look at the difference.
          </p>
          <BackendNote />
        </div>
        <Formula />
      </header>
      <main>
        {error.value === "" ? null : (
          <div class="error" role="alert">
            <p>{error.value}</p>
            <button type="button" class="quiet" onClick={() => (error.value = "")}>
              Dismiss
            </button>
          </div>
        )}
        <TrainingPanel />
        <AttentionPanel />
        <SamplePanel />
        <OpenModel />
      </main>
      <footer>
        <p>
          Everything is computed in this browser; no text and no model leaves it. The method: “Forget Attention”,{" "}
          <a href="https://arxiv.org/abs/2606.02332">arXiv 2606.02332</a>.
        </p>
      </footer>
    </div>
  );
}

/** Takes drops anywhere on the page. @returns what ends it */
function listenForDrops(setDropping: (dropping: boolean) => void): () => void {
  const ended = new AbortController();
  const { signal } = ended;
  const over = (event: DragEvent) => {
    event.preventDefault();
    setDropping(true);
  };
  const leave = (event: DragEvent) => {
    if (event.relatedTarget === null) setDropping(false);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setDropping(false);
    if (event.dataTransfer !== null) takeDrop(event.dataTransfer).catch(fail);
  };
  window.addEventListener("dragover", over, { signal });
  window.addEventListener("dragleave", leave, { signal });
  window.addEventListener("drop", drop, { signal });
  return () => ended.abort();
}

/** A dropped text becomes the text to train on; anything else is taken for a model. */
async function takeDrop(transfer: DataTransfer): Promise<void> {
  const text = transfer.getData("text/plain");
  const files = await droppedFiles(transfer);
  if (files.length === 0) {
    if (text !== "") replaceText(text);
    return;
  }
  if (files.every((file) => /\.(txt|md|csv|html?|[cm]?[jt]sx?|py|tex)$/i.test(file.name))) {
    replaceText((await Promise.all(files.map((file) => file.text()))).join("\n\n"));
    return;
  }
  await openModel(files);
}

function replaceText(text: string): void {
  if (phase.value !== "idle" && phase.value !== "done") {
    throw new Error("Training is under way. Stop it before changing the text.");
  }
  trainingText.value = text;
}
