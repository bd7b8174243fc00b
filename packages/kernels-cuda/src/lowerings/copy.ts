// Copies of elements from any strides to any others.

import { joinAxes, packAxes } from "../device/arguments.ts";
import type { KernelAdder, Region } from "../plan.ts";

/** Copies a tensor, in the widest words that every row, stride and address is made of. */
export function copyElements(
  adder: KernelAdder,
  element: number,
  sizes: readonly number[],
  from: Region,
  to: Region,
): void {
  const count = sizes.reduce((a, b) => a * b, 1);
  if (count === 0) return;
  const joined = joinAxes(sizes, [to.strides, from.strides]);
  const [width = 1] = joined.sizes.slice(-1);
  const rows = joined.strides.map((strides) => strides.slice(0, -1));
  const unit = joined.strides.every((strides) => strides.at(-1) === 1);
  if (count === 1 || (unit && joined.sizes.length === 1)) {
    adder.copy(from, to, count * element);
    return;
  }
  const whole = (word: number) =>
    (width * element) % word === 0 &&
    [from, to].every(({ offset }) => offset % word === 0) &&
    rows.every((strides) => strides.every((stride) => (stride * element) % word === 0));
  const word = unit ? ([16, 8, 4, 2, 1].find((size) => size >= element && whole(size)) ?? element) : element;
  const elements = word / element;
  const inWords = (values: readonly number[], last: number) => [...values.slice(0, -1).map((n) => n / elements), last];
  const axes = packAxes(
    [...joined.sizes.slice(0, -1), width / elements],
    joined.strides.map((strides) => ({ type: 0, strides: inWords(strides, strides.at(-1) ?? 1) })),
  );
  const blocks = Math.max(1, Math.min(Math.ceil(count / elements / 256), adder.multiprocessors * 32));
  adder.kernel(`copy_${word}`, blocks, 256, [from, to, axes]);
}
