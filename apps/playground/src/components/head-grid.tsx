// All heads of a model: lambda and half-life of each, and the one that is looked at.

import { useRef } from "preact/hooks";
import { look } from "../state.ts";
import type { AttentionView } from "../worker/views.ts";

export function HeadGrid({ view }: { readonly view: AttentionView }) {
  const box = useRef<HTMLDivElement>(null);
  const { table, layers, heads } = view;
  // Twice what lambda starts with: at first the bars are half full.
  const largest = Math.max(0.6266, ...(table?.lambda.flat() ?? []));
  const choose = (layer: number, head: number) => {
    if (layer < 0 || layer >= layers.length || head < 0 || head >= heads) return;
    look.layer.value = layer;
    look.head.value = head;
    box.current?.querySelector<HTMLElement>(`[data-head="${layer}.${head}"]`)?.focus();
  };
  return (
    <div
      ref={box}
      class="head-grid"
      role="radiogroup"
      aria-label="Layer and head"
      style={{ "--heads": heads }}
      onKeyDown={(event) => {
        const [layer, head] = [look.layer.value, look.head.value];
        const to = {
          ArrowLeft: [layer, head - 1],
          ArrowRight: [layer, head + 1],
          ArrowUp: [layer - 1, head],
          ArrowDown: [layer + 1, head],
        }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(to[0] ?? 0, to[1] ?? 0);
      }}
    >
      <span class="corner" aria-hidden="true" />
      {Array.from({ length: heads }, (_, head) => (
        <span key={head} class="column" aria-hidden="true">
          head {head}
        </span>
      ))}
      {layers.map((layer, index) => {
        const row = table?.layers.indexOf(layer.name) ?? -1;
        return [
          <span key={layer.name} class="row" aria-hidden="true">
            layer {layer.name}
          </span>,
          ...Array.from({ length: heads }, (_, head) => {
            const lambda = table?.lambda[row]?.[head];
            const halfLife = table?.measuredHalfLife?.[row]?.[head];
            const chosen = look.layer.value === index && look.head.value === head;
            return (
              <label key={`${layer.name}.${head}`} class={chosen ? "chosen" : ""}>
                <input
                  type="radio"
                  name="head"
                  checked={chosen}
                  aria-label={`layer ${layer.name}, head ${head}${lambda === undefined ? "" : `, lambda ${lambda.toFixed(3)}, half-life ${shortCount(halfLife ?? 0)} tokens`}`}
                  data-head={`${index}.${head}`}
                  onChange={() => choose(index, head)}
                />
                {lambda === undefined || halfLife === undefined ? (
                  <span class="muted">attention</span>
                ) : (
                  <>
                    <span>
                      λ <b>{lambda.toFixed(2)}</b>
                    </span>
                    <span>
                      ½ <b>{shortCount(halfLife)}</b>
                    </span>
                    <i class="share-bar" style={{ "--part": lambda / largest }} />
                  </>
                )}
              </label>
            );
          }),
        ];
      })}
    </div>
  );
}

function shortCount(count: number): string {
  if (count < 10) return count.toFixed(1);
  return count < 10_000 ? Math.round(count).toString() : `${Math.round(count / 1000)}k`;
}
