// What the attention kernels are made of: a workgroup has 64 rows of its own, of queries or of keys, and the rows of the
// other side pass by in tiles of as many columns as fit. A thread holds four rows by four columns of whatever is formed
// for the pairs of a tile, so no array has T x T elements.
//
//     products    own rows . other rows, for the sixteen pairs of each thread, through slices of workgroup memory
//     spread      what the threads hold, into workgroup memory
//     gather      sums over the tile's columns of what was spread times rows of the other side

import { decayBlock } from "@sisa/core";
import type { Slot } from "../codegen/shader.ts";
import type { Capabilities } from "../device.ts";

/** Rows of a workgroup; a block of decay sums. */
export const tileRows = decayBlock;

const rowQuads = tileRows / 4;

export interface TileShape {
  /** Rows of the other side in a tile; divides a block. */
  readonly columns: number;
  /** Elements of a row that lie in workgroup memory at a time, at most. */
  readonly depth: number;
}

const shapes: readonly TileShape[] = [
  { columns: 64, depth: 32 },
  { columns: 64, depth: 16 },
  { columns: 32, depth: 16 },
];

/** Vectors of four in the slices of both sides, padded so that writes spread over the banks. */
function sliceQuads({ columns, depth }: TileShape): number {
  return depth * (rowQuads + 1 + columns / 4 + 1);
}

/** The largest tiles that the device has workgroup memory and threads for. */
export function tileShape({ limits }: Capabilities): TileShape | undefined {
  return shapes.find(
    (shape) =>
      16 * (sliceQuads(shape) + shape.columns * rowQuads) <= limits.maxComputeWorkgroupStorageSize &&
      threadsOf(shape) <= limits.maxComputeInvocationsPerWorkgroup,
  );
}

export function threadsOf({ columns }: TileShape): number {
  return (columns / 4) * rowQuads;
}

export function tileDeclarations(shape: TileShape): string {
  return `var<workgroup> slices: array<vec4f, ${sliceQuads(shape)}>;
var<workgroup> weights: array<vec4f, ${shape.columns * rowQuads}>;`;
}

/** An array [batch, length, H, width] whose rows are read four elements at a time. */
export interface Rows {
  readonly array: string;
  readonly length: number;
  readonly heads: number;
  readonly width: number;
}

/** An array whose rows are read four elements at a time. */
export function fours(slot: Slot): Slot {
  return { ...slot, type: `vec4<${slot.value.type}>` };
}

export const each = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index)).join("\n");

/** Index of a row, clamped to the array's last one. */
export function rowAt({ length, heads }: Omit<Rows, "array" | "width">, place: string): string {
  return `((batch * ${length}u + min(${place}, ${length - 1}u)) * ${heads}u + head)`;
}

/** `name`0 to `name`3: for each of the thread's columns a vector of its four rows. */
export const declare = (name: string) => each(4, (n) => `var ${name}${n} = vec4f();`);

/** Adds own . other of rows from `firstOwn` and `first` on to `name`0 to `name`3. */
export function products(shape: TileShape, own: Rows, other: Rows, name: string): string {
  const { width } = own;
  const depth = [32, 16, 8].find((size) => size <= shape.depth && width % size === 0) ?? 4;
  const threads = threadsOf(shape);
  const quads = depth / 4;
  const strideOwn = rowQuads + 1;
  const strideOther = shape.columns / 4 + 1;
  const place = shape.depth * strideOwn;
  const load = (rows: Rows, count: number, first: string, from: number, stride: number) =>
    `for (var n = lane; n < ${count * quads}u; n += ${threads}u) {
let r = n / ${quads}u;
let d = n % ${quads}u;
let value = vec4f(${rows.array}[${rowAt(rows, `${first} + r`)} * ${width / 4}u + slice / 4u + d]);
${each(4, (step) => `slices[${from}u + (d * 4u + ${step}u) * ${stride}u + r / 4u][r % 4u] = value[${step}];`)}
}`;
  return `for (var slice = 0u; slice < ${width}u; slice += ${depth}u) {
${load(own, tileRows, "firstOwn", 0, strideOwn)}
${load(other, shape.columns, "first", place, strideOther)}
workgroupBarrier();
for (var step = 0u; step < ${depth}u; step++) {
let x = slices[step * ${strideOwn}u + threadRow];
let y = slices[${place}u + step * ${strideOther}u + threadColumn];
${each(4, (n) => `${name}${n} = fma(x, vec4f(y[${n}]), ${name}${n});`)}
}
workgroupBarrier();
}`;
}

/** Puts one vector for each of the thread's columns where `gather` reads them. */
export function spread(value: (column: number) => string): string {
  return each(4, (n) => `weights[(threadColumn * 4u + ${n}u) * ${rowQuads}u + threadRow] = ${value(n)};`);
}

/** The largest of every row over all threads and what `so` holds. */
export function largestOfRows(shape: TileShape, own: string, so: string): string {
  return `weights[threadColumn * ${rowQuads}u + threadRow] = ${own};
workgroupBarrier();
var peak = ${so};
for (var n = 0u; n < ${shape.columns / 4}u; n++) { peak = max(peak, weights[n * ${rowQuads}u + threadRow]); }
workgroupBarrier();`;
}

/** The sum of every row over all threads, as `name`. */
export function sumOfRows(shape: TileShape, own: string, name: string): string {
  return `weights[threadColumn * ${rowQuads}u + threadRow] = ${own};
workgroupBarrier();
var ${name} = vec4f();
for (var n = 0u; n < ${shape.columns / 4}u; n++) { ${name} += weights[n * ${rowQuads}u + threadRow]; }`;
}

/** Quads of a row of the result that a thread holds: its own, and those as many threads further. */
const held = (shape: TileShape, width: number) => Math.ceil(width / shape.columns);

/** Sums for `gather`: of every held quad four elements, each a vector of the thread's four rows. */
export function declareSums(shape: TileShape, name: string, width: number): string {
  return each(held(shape, width), (u) => each(4, (e) => `var ${name}${u}_${e} = vec4f();`));
}

export function scaleSums(shape: TileShape, name: string, width: number, factor: string): string {
  return each(held(shape, width), (u) => each(4, (e) => `${name}${u}_${e} *= ${factor};`));
}

const quadOf = (shape: TileShape, u: number) => `threadColumn + ${(u * shape.columns) / 4}u`;

/** Adds what was spread times the rows of the other side from `first` on. Begins after `spread`, ends with a barrier. */
export function gather(shape: TileShape, other: Rows, name: string): string {
  const quads = other.width / 4;
  const rows = [64, 32, 16, 8].find((count) => count <= shape.columns && count * quads <= sliceQuads(shape)) ?? 4;
  const count = held(shape, other.width);
  const quad = (u: number) =>
    ((u + 1) * shape.columns) / 4 <= quads ? quadOf(shape, u) : `min(${quadOf(shape, u)}, ${quads - 1}u)`;
  return `for (var slice = 0u; slice < ${shape.columns}u; slice += ${rows}u) {
for (var n = lane; n < ${rows * quads}u; n += ${threadsOf(shape)}u) {
slices[n] = vec4f(${other.array}[${rowAt(other, `first + slice + n / ${quads}u`)} * ${quads}u + n % ${quads}u]);
}
workgroupBarrier();
for (var j = 0u; j < ${rows}u; j++) {
let p = weights[(slice + j) * ${rowQuads}u + threadRow];
${each(
  count,
  (u) => `let y${u} = slices[j * ${quads}u + ${quad(u)}];
${each(4, (e) => `${name}${u}_${e} = fma(p, vec4f(y${u}[${e}]), ${name}${u}_${e});`)}`,
)}
}
workgroupBarrier();
}`;
}

/** Writes the sums to the thread's own rows. `factor` is a vector of four rows, or one number. */
export function storeSums(shape: TileShape, own: Rows, type: string, name: string, factor: string): string {
  const quads = own.width / 4;
  return `{
let factor = vec4f(${factor});
${each(4, (r) => {
  const stores = each(held(shape, own.width), (u) => {
    const parts = [0, 1, 2, 3].map((e) => `${name}${u}_${e}[${r}]`).join(", ");
    const store = `${own.array}[place * ${quads}u + ${quadOf(shape, u)}] = vec4<${type}>(vec4f(${parts}) * factor[${r}]);`;
    return ((u + 1) * shape.columns) / 4 <= quads ? store : `if (${quadOf(shape, u)} < ${quads}u) { ${store} }`;
  });
  return `if (ownRow + ${r}u < ${own.length}u) {
let place = ${rowAt(own, `ownRow + ${r}u`)};
${stores}
}`;
})}
}`;
}

/** A number for each of the thread's four rows. */
export function ofRows(value: (place: string) => string): string {
  return `vec4f(${[0, 1, 2, 3].map((r) => value(`ownRow + ${r}u`)).join(", ")})`;
}
