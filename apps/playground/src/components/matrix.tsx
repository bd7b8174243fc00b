// A whole term as a picture: one pixel for each pair, queries from top to bottom. A click chooses the query.

import { effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { look } from "../state.ts";
import { rowPeak, type TermMatrix } from "./head-terms.ts";

interface MatrixProps {
  readonly name: string;
  readonly matrix: TermMatrix;
  readonly length: number;
  readonly signed: boolean;
}

/** Rises when the page turns dark or light, since pictures are not repainted by styles. */
const themeChanges = signal(0);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themeChanges.value++);

export function Matrix({ name, matrix, length, signed }: MatrixProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(
    () =>
      effect(() => {
        themeChanges.value;
        if (canvas.current !== null) paint(canvas.current, matrix, signed);
      }),
    [matrix, signed],
  );
  const query = look.query.value;
  return (
    <button
      type="button"
      class="matrix"
      // The keys are those of the text above.
      tabIndex={-1}
      onClick={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        look.query.value = Math.max(
          0,
          Math.min(length - 1, Math.floor(((event.clientY - box.top) / box.height) * length)),
        );
      }}
    >
      <canvas
        ref={canvas}
        width={length}
        height={length}
        role="img"
        aria-label={`${name} of all ${length} tokens with all earlier ones`}
      />
      <i class="row-mark" style={{ top: `${(query / length) * 100}%`, height: `${100 / length}%` }} />
    </button>
  );
}

function paint(canvas: HTMLCanvasElement, matrix: TermMatrix, signed: boolean): void {
  const context = canvas.getContext("2d");
  if (context === null) return;
  const styles = getComputedStyle(canvas);
  const colour = (name: string) => styles.getPropertyValue(name).trim().split(" ").map(Number);
  const [positive, negative] = signed
    ? [colour("--positive"), colour("--negative")]
    : [colour("--share"), colour("--share")];
  const { length } = matrix;
  const peaks = Array.from({ length }, (_, query) => rowPeak(matrix, query));
  const largest = Math.max(...peaks);
  const image = context.createImageData(length, length);
  for (let query = 0; query < length; query++) {
    // Shares of a row add up to one, so rows of many keys would be pale beside the first.
    const peak = signed ? largest : (peaks[query] ?? 0);
    matrix.row(query).forEach((value, key) => {
      const at = (query * length + key) * 4;
      image.data.set(value < 0 ? negative : positive, at);
      // The root lets small values be seen beside large ones.
      image.data[at + 3] = peak > 0 ? 255 * Math.sqrt(Math.abs(value) / peak) : 0;
    });
  }
  context.putImageData(image, 0, 0);
}
