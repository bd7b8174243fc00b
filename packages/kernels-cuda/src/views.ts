// Places of elements in memory: strides of a tensor, and of what is cut out of it or read in another shape.

/** Where the elements of a tensor lie from its first one on, in elements. */
export type Strides = readonly number[];

/** Strides of a dense row-major tensor. */
export function denseStrides(sizes: readonly number[]): number[] {
  const strides = new Array<number>(sizes.length).fill(1);
  for (let axis = sizes.length - 2; axis >= 0; axis--)
    strides[axis] = (strides[axis + 1] ?? 1) * (sizes[axis + 1] ?? 1);
  return strides;
}

/** Strides of a tensor that is broadcast to `target`: 0 along new axes and axes of size 1. */
export function broadcastStrides(
  sizes: readonly number[],
  target: readonly number[],
  strides: Strides = denseStrides(sizes),
): number[] {
  const extra = target.length - sizes.length;
  return target.map((_, axis) => (axis < extra || sizes[axis - extra] === 1 ? 0 : (strides[axis - extra] ?? 0)));
}

/** Whether elements follow each other without gaps. Strides of axes with one element say nothing. */
export function isDense(sizes: readonly number[], strides: Strides): boolean {
  const dense = denseStrides(sizes);
  return sizes.includes(0) || sizes.every((size, axis) => size === 1 || strides[axis] === dense[axis]);
}

/** The same elements in another shape without moving any; undefined where that cannot be. */
export function reshapeStrides(
  sizes: readonly number[],
  strides: Strides,
  target: readonly number[],
): number[] | undefined {
  if (sizes.includes(0)) return denseStrides(target);
  const from = joinNeighbours(sizes, strides);
  const result = new Array<number>(target.length).fill(0);
  let axis = target.length - 1;
  for (const { size, stride } of from.toReversed()) {
    let rest = size;
    let step = stride;
    while (rest > 1) {
      const wanted = target[axis] ?? 0;
      if (axis < 0 || rest % wanted !== 0) return undefined;
      result[axis] = step;
      step *= wanted;
      rest /= wanted;
      axis -= 1;
    }
  }
  return result;
}

function joinNeighbours(sizes: readonly number[], strides: Strides): { size: number; stride: number }[] {
  const joined: { size: number; stride: number }[] = [];
  sizes.forEach((size, axis) => {
    if (size === 1) return;
    const stride = strides[axis] ?? 0;
    const last = joined.at(-1);
    if (last && last.stride === stride * size) Object.assign(last, { size: last.size * size, stride });
    else joined.push({ size, stride });
  });
  return joined;
}

/** Rows of neighbouring elements at one distance from each other. */
export interface Rows {
  readonly count: number;
  readonly width: number;
  /** Elements from one row to the next. */
  readonly pitch: number;
}

/** A tensor as rows along its last axes, at least `width` wide; undefined where its elements lie otherwise. */
export function rowsOf(sizes: readonly number[], strides: Strides, width = sizes.at(-1) ?? 1): Rows | undefined {
  const count = sizes.reduce((a, b) => a * b, 1) / width;
  const found = reshapeStrides(sizes, strides, [count, width]);
  if (!found || (width > 1 && found[1] !== 1)) return undefined;
  return { count, width, pitch: count > 1 ? (found[0] ?? width) : width };
}
