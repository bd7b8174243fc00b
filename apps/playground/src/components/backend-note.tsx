// What the models run on, and why not on the GPU where they do not.

import { slots } from "../state.ts";

export function BackendNote() {
  const about = slots.value.map((slot) => slot.about.value).find((found) => found !== undefined);
  return (
    <p class="backend" aria-live="polite">
      <span class={about === undefined ? "dot waiting" : about.reason === undefined ? "dot fast" : "dot"} />
      <strong>{about?.label ?? "Starting …"}</strong>
      {about?.reason === undefined ? null : <span>{about.reason}</span>}
    </p>
  );
}
