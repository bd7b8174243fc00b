// A prompt, continued by every model there is.

import { modelLabels, models, prompt, sampleAll, sampling } from "../state.ts";
import "./sample-panel.css";

export function SamplePanel() {
  const ready = models.value.length > 0;
  return (
    <section aria-labelledby="sample-title">
      <div class="section-head">
        <h2 id="sample-title">Continue</h2>
        <p>What the models make of a beginning, at any time of their training.</p>
      </div>
      <div class="card">
        <form
          class="prompt"
          onSubmit={(event) => {
            event.preventDefault();
            void sampleAll();
          }}
        >
          <label for="prompt">Beginning</label>
          <input
            id="prompt"
            value={prompt.value}
            autocomplete="off"
            spellcheck={false}
            onInput={(event) => {
              prompt.value = event.currentTarget.value;
            }}
          />
          <button type="submit" class="primary" disabled={!ready || sampling.value}>
            {sampling.value ? "Writing …" : "Continue"}
          </button>
        </form>
        {ready ? (
          <div class="samples">
            {models.value.map(({ name, sample }) => (
              <article key={name}>
                <h3>
                  <i class={`swatch ${name}`} />
                  {modelLabels[name]}
                </h3>
                <p class="sample">
                  <b>{prompt.value}</b>
                  {sample.value === "" ? <span class="muted">…</span> : sample.value}
                </p>
              </article>
            ))}
          </div>
        ) : (
          <p class="muted">There is no model yet. Start training, or open one.</p>
        )}
      </div>
    </section>
  );
}
