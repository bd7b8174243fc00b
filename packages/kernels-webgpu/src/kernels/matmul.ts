// Matrix products over the last two axes. Operands are read as they lie, transposed or not.

import { sizesOf } from "@sisa/core";
import { count, Place } from "../codegen/index-space.ts";
import { flatGroup, gridOf, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import type { Value } from "../program.ts";

/** What is multiplied: [batch, m, k] x [batch, k, n], where leading axes of a and b may be broadcast. */
export interface Product {
  readonly a: Slot;
  readonly b: Slot;
  readonly out: Slot;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  /** Leading axes of the result and of the operands. */
  readonly leading: readonly number[];
  readonly leadingA: readonly number[];
  readonly leadingB: readonly number[];
}

export const matmul = kernel((context) => {
  const { a, b } = context.node.inputs;
  const [shapeA, shapeB] = [sizesOf(a?.shape ?? []), sizesOf(b?.shape ?? [])];
  const shape = sizesOf(context.node.outputs.value?.shape ?? []);
  const { transposeA, transposeB } = context.attributes as { transposeA: boolean; transposeB: boolean };
  multiply(context, {
    a: context.input("a"),
    b: context.input("b"),
    out: context.output(),
    m: shape.at(-2) ?? 1,
    n: shape.at(-1) ?? 1,
    k: shapeA.at(transposeA ? -2 : -1) ?? 1,
    transposeA,
    transposeB,
    leading: shape.slice(0, -2),
    leadingA: shapeA.slice(0, -2),
    leadingB: shapeB.slice(0, -2),
  });
});

/** Chooses a variant by shape and device, and dispatches it. */
export function multiply(context: KernelContext, given: Product): void {
  const product = mergeBatch(given);
  const { m, n, k } = product;
  const batch = count(product.leading);
  if (batch * m * n === 0) return;
  if (k === 0) {
    context.dispatch({
      label: ".zero",
      slots: { out: product.out },
      workgroupSize: [256],
      body: `let i = ${flatGroup} * 256u + lane;\nif (i < ${batch * m * n}u) { out[i] = ${product.out.value.type}(0); }`,
      workgroups: gridOf(Math.ceil((batch * m * n) / 256), limitOf(context)),
    });
    return;
  }
  if (m <= 4 && n >= 8) multiplyFewRows(context, product);
  else multiplyTiles(context, product, tileFor(product, batch));
}

const limitOf = ({ device }: KernelContext) => device.limits.maxComputeWorkgroupsPerDimension;

/** A weight that all leading axes share: the axes are rows of one product. */
function mergeBatch(product: Product): Product {
  const { leading, leadingA, leadingB, transposeA, m } = product;
  const same = leading.length === leadingA.length && leading.every((size, axis) => size === leadingA[axis]);
  if (leading.length === 0 || transposeA || !same || count(leadingB) !== 1) return product;
  return { ...product, m: m * count(leading), leading: [], leadingA: [], leadingB: [] };
}

/** A workgroup computes rows x columns; each of its threads a small block; `depth` steps of k at a time. */
interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly threadRows: number;
  readonly threadColumns: number;
}

const smallTile: Tile = { rows: 32, columns: 32, depth: 16, threadRows: 4, threadColumns: 4 };
const mediumTile: Tile = { rows: 64, columns: 64, depth: 16, threadRows: 4, threadColumns: 4 };
const largeTile: Tile = { rows: 128, columns: 128, depth: 16, threadRows: 8, threadColumns: 8 };

/** The largest tile that still gives every core of a GPU work, and is not mostly padding. */
function tileFor({ m, n }: Product, batch: number): Tile {
  const groups = ({ rows, columns }: Tile) => Math.ceil(m / rows) * Math.ceil(n / columns) * batch;
  for (const tile of [largeTile, mediumTile]) {
    if (groups(tile) >= 128 && m >= tile.rows && n >= tile.columns) return tile;
  }
  return m >= 64 && n >= 64 && groups(mediumTile) >= 32 ? mediumTile : smallTile;
}

/** Splits of k for products with few tiles and long sums, as gradients of weights are. */
function splitsFor(groups: number, k: number): number {
  if (groups >= 64 || k < 512) return 1;
  return Math.min(Math.ceil(128 / groups), Math.floor(k / 256));
}

function multiplyTiles(context: KernelContext, product: Product, tile: Tile): void {
  const { m, n, k, leading, out } = product;
  const batch = count(leading);
  const { rows, columns, depth } = tile;
  const [tilesDown, tilesAcross] = [Math.ceil(m / rows), Math.ceil(n / columns)];
  const groups = tilesDown * tilesAcross * batch;
  const splits = splitsFor(groups, k);
  const part = Math.ceil(k / splits / depth) * depth;
  const partial = splits > 1 ? context.scratch("f32", splits * batch * m * n) : undefined;
  const target: Slot = partial ? { value: partial, access: "read_write" } : out;
  context.dispatch({
    label: `.${rows}x${columns}${splits > 1 ? `.split${splits}` : ""}`,
    slots: {
      a: inFours(product.a, operandOf(product, "A").four),
      b: inFours(product.b, operandOf(product, "B").four),
      out: inFours(target, n % 4 === 0),
    },
    workgroupSize: [threadsOf(tile)],
    // Both with k outside, so that a thread reads its rows and columns four at a time.
    declarations: `var<workgroup> tileA: array<vec4f, ${(rows * depth) / 4}>;
var<workgroup> tileB: array<vec4f, ${(columns * depth) / 4}>;`,
    body: tileBody(product, tile, target.value, { tilesDown, tilesAcross, groups, splits, part }),
    workgroups: gridOf(groups * splits, limitOf(context)),
  });
  if (partial) addParts(context, partial, out, batch * m * n, splits);
}

/** Adds up what the splits computed, in a fixed order. */
function addParts(context: KernelContext, partial: Value, out: Slot, elements: number, splits: number): void {
  context.dispatch({
    label: ".sum",
    slots: { partial: { value: partial, access: "read" }, out },
    workgroupSize: [256],
    body: `let i = ${flatGroup} * 256u + lane;
if (i >= ${elements}u) { return; }
var total = 0.0f;
for (var split = 0u; split < ${splits}u; split++) { total += partial[split * ${elements}u + i]; }
out[i] = ${out.value.type}(total);`,
    workgroups: gridOf(Math.ceil(elements / 256), limitOf(context)),
  });
}

function threadsOf({ rows, columns, threadRows, threadColumns }: Tile): number {
  return (rows / threadRows) * (columns / threadColumns);
}

/** How an operand lies: `deep` with k innermost; `four` where it can be read four elements at a time. */
function operandOf({ m, n, k, transposeA, transposeB }: Product, name: "A" | "B") {
  const deep = name === "A" ? !transposeA : transposeB;
  const innermost = deep ? k : name === "A" ? m : n;
  return { deep, four: innermost % 4 === 0 };
}

function inFours(slot: Slot, four: boolean): Slot {
  return four ? { ...slot, type: `vec4<${slot.value.type}>` } : slot;
}

interface Cut {
  readonly tilesDown: number;
  readonly tilesAcross: number;
  readonly groups: number;
  readonly splits: number;
  readonly part: number;
}

function tileBody(product: Product, tile: Tile, target: Value, cut: Cut): string {
  const { m, n, k } = product;
  const { rows, columns, depth, threadRows, threadColumns } = tile;
  const threads = threadsOf(tile);
  const across = columns / threadColumns;
  const { lines, startA, startB } = batchStarts(product);
  const quads = threadColumns / 4;
  const each = (limit: number, body: (i: number) => string) =>
    Array.from({ length: limit }, (_, i) => body(i)).join("\n");

  const load = (name: "A" | "B") => {
    const [size, bound, array] = name === "A" ? [rows, m, "a"] : [columns, n, "b"];
    const [base, start] = name === "A" ? ["firstRow", startA] : ["firstColumn", startB];
    const { deep, four } = operandOf(product, name);
    const index = `index${four ? " * 4u" : ""}`;
    const [outer, inner] = deep
      ? [`(${index}) / ${depth}u`, `(${index}) % ${depth}u`]
      : [`(${index}) % ${size}u`, `(${index}) / ${size}u`];
    const place = `${start} + ${deep ? `o * ${k}u + d` : `d * ${bound}u + o`}`;
    const inside = `o < ${bound}u && d < last`;
    const slot = (step: number) => `tile${name}[(y + ${step}u) * ${size / 4}u + x / 4u]`;
    const end = lastOf(product, name);
    const store = !four
      ? `${slot(0)}[x % 4u] = select(0.0f, f32(${array}[min(${place}, ${end}u)]), ${inside});`
      : `let four = select(vec4f(), vec4f(${array}[min((${place}) / 4u, ${(end + 1) / 4 - 1}u)]), ${inside});
${deep ? each(4, (step) => `${slot(step)}[x % 4u] = four[${step}];`) : `${slot(0)} = four;`}`;
    return `for (var index = lane; index < ${(size * depth) / (four ? 4 : 1)}u; index += ${threads}u) {
let x = ${outer};
let y = ${inner};
let o = ${base} + x;
let d = depth + y;
${store}
}`;
  };

  const storeQuad = (quad: string, column: string) =>
    n % 4 === 0
      ? `if (row < ${m}u && ${column} < ${n}u) { out[(place + ${column}) / 4u] = vec4<${target.type}>(${quad}); }`
      : `for (var part = 0u; part < 4u; part++) {
if (row < ${m}u && ${column} + part < ${n}u) { out[place + ${column} + part] = ${target.type}(${quad}[part]); }
}`;

  return `let block = ${flatGroup};
if (block >= ${cut.groups * cut.splits}u) { return; }
let split = block / ${cut.groups}u;
let batch = (block % ${cut.groups}u) / ${cut.tilesDown * cut.tilesAcross}u;
let tile = block % ${cut.tilesDown * cut.tilesAcross}u;
let firstRow = (tile / ${cut.tilesAcross}u) * ${rows}u;
let firstColumn = (tile % ${cut.tilesAcross}u) * ${columns}u;
let last = min(${k}u, (split + 1u) * ${cut.part}u);
${lines.join("\n")}
let threadRow = lane / ${across}u;
let threadColumn = lane % ${across}u;
${each(threadRows, (row) => each(quads, (quad) => `var c${row}_${quad} = vec4f();`))}
for (var depth = split * ${cut.part}u; depth < last; depth += ${depth}u) {
${load("A")}
${load("B")}
workgroupBarrier();
for (var step = 0u; step < ${depth}u; step++) {
${each(quads, (quad) => `let b${quad} = tileB[step * ${columns / 4}u + threadColumn * ${quads}u + ${quad}u];`)}
${each(threadRows / 4, (quad) => `let a${quad} = tileA[step * ${rows / 4}u + threadRow * ${threadRows / 4}u + ${quad}u];`)}
${each(threadRows, (row) =>
  each(quads, (quad) => {
    const c = `c${row}_${quad}`;
    return `${c} = fma(vec4f(a${Math.floor(row / 4)}[${row % 4}]), b${quad}, ${c});`;
  }),
)}
}
workgroupBarrier();
}
${each(
  threadRows,
  (row) => `{
let row = firstRow + threadRow * ${threadRows}u + ${row}u;
let place = ((split * ${count(product.leading)}u + batch) * ${m}u + row) * ${n}u;
${each(quads, (quad) => storeQuad(`c${row}_${quad}`, `firstColumn + threadColumn * ${threadColumns}u + ${quad * 4}u`))}
}`,
)}`;
}

/** The last element of an operand: what lies outside of a tile reads it instead. */
function lastOf({ m, n, k, leadingA, leadingB }: Product, name: "A" | "B"): number {
  return Math.max(count(name === "A" ? leadingA : leadingB) * (name === "A" ? m : n) * k, 1) - 1;
}

/** Where the matrices of `batch` begin in a and b. */
function batchStarts({ leading, leadingA, leadingB, m, n, k }: Product) {
  const lines: string[] = [];
  const names = new Map<string, string>();
  const scope = {
    define(expression: string): string {
      const known = names.get(expression);
      if (known !== undefined) return known;
      const name = `p${names.size}`;
      names.set(expression, name);
      lines.push(`let ${name} = ${expression};`);
      return name;
    },
  };
  const place = Place.flat(scope, leading, "batch");
  const startOf = (sizes: readonly number[], matrix: number) =>
    count(sizes) === 1 ? "0u" : scope.define(`${place.broadcastFrom(sizes).flat} * ${matrix}u`);
  const [startA, startB] = [startOf(leadingA, m * k), startOf(leadingB, k * n)];
  return { lines, startA, startB };
}

/**
 * Up to four rows, as in decoding: bound by reading b once. Where b lies with k innermost, the threads of a group share
 * the sum of one column; else neighbouring threads take neighbouring columns and share k among groups of them.
 */
function multiplyFewRows(context: KernelContext, product: Product): void {
  const { m, n, k, transposeA, transposeB, leading, out } = product;
  const batch = count(leading);
  const { lines, startA, startB } = batchStarts(product);
  const lanes = transposeB ? 32 : 8;
  const columns = transposeB ? 4 : 32;
  const threads = lanes * columns;
  const groups = Math.ceil(n / columns);
  const [column, worker] = transposeB
    ? [`lane / ${lanes}u`, `lane % ${lanes}u`]
    : [`lane % ${columns}u`, `lane / ${columns}u`];
  const rows = Array.from({ length: m }, (_, row) => row);
  const placeA = (row: number) => (transposeA ? `d * ${m}u + ${row}u` : `${row * k}u + d`);
  context.dispatch({
    label: ".rows",
    slots: { a: product.a, b: product.b, out },
    workgroupSize: [threads],
    declarations: `var<workgroup> parts: array<f32, ${threads * m}>;`,
    body: `let index = ${flatGroup};
let batch = index / ${groups}u;
let column = (index % ${groups}u) * ${columns}u + ${column};
let worker = ${worker};
let inside = column < ${n}u && batch < ${batch}u;
${lines.join("\n")}
${rows.map((row) => `var c${row} = 0.0f;`).join("\n")}
if (inside) {
for (var d = worker; d < ${k}u; d += ${lanes}u) {
let value = f32(b[${startB} + ${transposeB ? `column * ${k}u + d` : `d * ${n}u + column`}]);
${rows.map((row) => `c${row} = fma(f32(a[${startA} + ${placeA(row)}]), value, c${row});`).join("\n")}
}
}
${rows.map((row) => `parts[${row * threads}u + lane] = c${row};`).join("\n")}
workgroupBarrier();
if (worker == 0u && inside) {
${rows
  .map(
    (row) => `{
var total = 0.0f;
for (var other = 0u; other < ${lanes}u; other++) { total += parts[${row * threads}u + lane + other * ${transposeB ? 1 : columns}u]; }
out[(batch * ${m}u + ${row}u) * ${n}u + column] = ${out.value.type}(total);
}`,
  )
  .join("\n")}
}`,
    workgroups: gridOf(groups * batch, limitOf(context)),
  });
}
