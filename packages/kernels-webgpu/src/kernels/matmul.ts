// Matrix products over the last two axes. Operands are read as they lie, transposed or not.

import { sizesOf } from "@sisa/core";
import { count, Place } from "../codegen/index-space.ts";
import { sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, gridOf, type Slot } from "../codegen/shader.ts";
import type { Capabilities } from "../device.ts";
import { originOf } from "../fuse.ts";
import { type Finish, type KernelContext, kernel } from "../lowering.ts";
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
  readonly finish?: Finish | undefined;
  /** Elements of each array that come before; multiples of four. Default 0. */
  readonly offsets?: { readonly a?: number; readonly b?: number; readonly out?: number };
  /** Added to what is there. */
  readonly accumulate?: boolean;
}

export const matmul = kernel((context) => multiply(context, productOf(context)), {
  finishes: true,
  // Weights that a few rows are multiplied by, such as those of queries, keys and values in decoding.
  joint: {
    key({ inputs: { a, b }, attributes: { transposeA, transposeB } }) {
      const [sizesA, sizesB] = [sizesOf(a?.shape ?? []), sizesOf(b?.shape ?? [])];
      const rows = transposeA ? sizesA.at(-1) : count(sizesA.slice(0, -1));
      if ((rows ?? 0) > fewRows || sizesB.length !== 2 || (transposeA && sizesA.length !== 2) || !a) return undefined;
      return [originOf(a), transposeA, transposeB];
    },
    build(contexts) {
      const all = contexts.map((context) => ({ context, product: mergeBatch(productOf(context)) }));
      const isFew = ({ product }: (typeof all)[number]) => isForFewRows(product);
      for (const { context, product } of all.filter((one) => !isFew(one))) multiply(context, product);
      const few = all.filter(isFew);
      const [first] = few;
      if (!first) return;
      const most = Math.floor((first.context.device.limits.maxStorageBuffersPerShaderStage - 1) / 2);
      for (let from = 0; from < few.length; from += most) {
        const products = few.slice(from, from + most).map(({ product }) => product);
        multiplyFewRows(first.context, products);
      }
    },
  },
});

function productOf(context: KernelContext): Product {
  const { a, b } = context.node.inputs;
  const [shapeA, shapeB] = [sizesOf(a?.shape ?? []), sizesOf(b?.shape ?? [])];
  const shape = sizesOf(context.node.outputs.value?.shape ?? []);
  const { transposeA, transposeB } = context.attributes as { transposeA: boolean; transposeB: boolean };
  return {
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
    finish: context.finish,
  };
}

/** Rows up to which a product is bound by reading b. */
const fewRows = 4;

const isForFewRows = ({ m, n, k, leading }: Product) => m <= fewRows && n >= 8 && m * n * k * count(leading) > 0;

/** A matrix that fits into one tile leaves a tile little to save, and a kernel of a few lines is compiled in no time. */
const isSmall = ({ m, n, k }: Product) => (m <= 32 && n <= 32 && k <= 64) || k === 0;

/** Chooses a variant by shape and device, and dispatches it. */
export function multiply(context: KernelContext, given: Product): void {
  const product = mergeBatch(given);
  const { m, n, leading } = product;
  if (count(leading) * m * n === 0) return;
  if (isForFewRows(product)) multiplyFewRows(context, [product]);
  else if (isSmall(product)) multiplySmall(context, product);
  else multiplyTiles(context, product);
}

const limitOf = ({ device }: KernelContext) => device.limits.maxComputeWorkgroupsPerDimension;

/** A weight that all leading axes share: the axes are rows of one product. */
function mergeBatch(product: Product): Product {
  const { leading, leadingA, leadingB, transposeA, m } = product;
  const same = leading.length === leadingA.length && leading.every((size, axis) => size === leadingA[axis]);
  if (leading.length === 0 || transposeA || !same || count(leadingB) !== 1) return product;
  return { ...product, m: m * count(leading), leading: [], leadingA: [], leadingB: [] };
}

/** A thread for each element. */
function multiplySmall(context: KernelContext, product: Product): void {
  const { m, n, k, transposeA, transposeB, leading, out, finish } = product;
  const elements = count(leading) * m * n;
  const { lines: starts, startA, startB } = batchStarts(product);
  context.dispatch({
    label: ".small",
    slots: { a: product.a, b: product.b, ...finish?.slots, out },
    workgroupSize: [256],
    declarations: finish?.declaration ?? "",
    body: `let i = ${flatGroup} * 256u + lane;
if (i >= ${elements}u) { return; }
let column = i % ${n}u;
let row = (i / ${n}u) % ${m}u;
let batch = i / ${m * n}u;
${starts.join("\n")}
var total = 0.0f;
for (var d = 0u; d < ${k}u; d++) {
let x = f32(a[${startA} + ${transposeA ? `d * ${m}u + row` : `row * ${k}u + d`}]);
let y = f32(b[${startB} + ${transposeB ? `column * ${k}u + d` : `d * ${n}u + column`}]);
total = fma(x, y, total);
}
out[${outStart(product)}i] ${assign(product)} ${out.value.type}(${finished(finish, "i", "total")});`,
    workgroups: gridOf(Math.ceil(elements / 256), limitOf(context)),
  });
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
const tiles = [largeTile, mediumTile, smallTile] as const;

/** Workgroups that keep every core of a large GPU at work. */
const enough = 192;

/** The largest tile that gives every core work, with sums cut into parts where they are long, and is not mostly padding. */
function tileFor({ m, n, k }: Product, batch: number, device: Capabilities): { tile: Tile; splits: number } {
  const down = ({ rows }: Tile) => Math.ceil(m / rows);
  const across = ({ columns }: Tile) => Math.ceil(n / columns);
  for (const full of tiles) {
    const tile = storageOf(full) <= device.limits.maxComputeWorkgroupStorageSize ? full : { ...full, depth: 8 };
    const groups = down(tile) * across(tile) * batch;
    const padded = down(tile) * tile.rows * across(tile) * tile.columns;
    const splits = splitsFor(groups, k);
    const fits = groups * splits >= enough && padded <= 1.5 * m * n;
    if (fits || tile.rows === smallTile.rows) return { tile, splits };
  }
  throw new Error("matmul: no tile");
}

/** Parts that sums over k are cut into: products with few tiles and long sums are what gradients of weights are. */
function splitsFor(groups: number, k: number): number {
  return groups >= enough ? 1 : Math.max(1, Math.min(Math.ceil(enough / groups), Math.floor(k / 256)));
}

/** Bytes of workgroup memory, with the padding of operands that have k innermost. */
function storageOf({ rows, columns, depth }: Tile): number {
  return 4 * depth * (rows + columns + 8);
}

function multiplyTiles(context: KernelContext, product: Product): void {
  const { m, n, k, leading, out } = product;
  const batch = count(leading);
  const { tile, splits } = tileFor(product, batch, context.device);
  const { rows, columns, depth } = tile;
  const [tilesDown, tilesAcross] = [Math.ceil(m / rows), Math.ceil(n / columns)];
  const groups = tilesDown * tilesAcross * batch;
  const part = Math.ceil(k / splits / depth) * depth;
  const partial = splits > 1 ? context.scratch("f32", splits * batch * m * n) : undefined;
  const target: Slot = partial ? { value: partial, access: "read_write" } : out;
  const finish = partial ? undefined : product.finish;
  const [a, b] = [operandOf(product, "A", tile), operandOf(product, "B", tile)];
  context.dispatch({
    label: `.${rows}x${columns}${splits > 1 ? `.split${splits}` : ""}`,
    slots: {
      a: inFours(product.a, a.four),
      b: inFours(product.b, b.four),
      ...finish?.slots,
      out: inFours(target, n % 4 === 0),
    },
    workgroupSize: [threadsOf(tile)],
    // Both with k outside, so that a thread reads its rows and columns four at a time.
    declarations: `var<workgroup> tileA: array<vec4f, ${depth * a.stride}>;
var<workgroup> tileB: array<vec4f, ${depth * b.stride}>;
${finish?.declaration ?? ""}`,
    body: tileBody(product, tile, target.value, { tilesDown, tilesAcross, groups, splits, part }, finish),
    workgroups: gridOf(groups * splits, limitOf(context)),
  });
  if (partial) addParts(context, partial, product, batch * m * n, splits);
}

/** Adds up what the splits computed, in a fixed order. */
function addParts(context: KernelContext, partial: Value, product: Product, elements: number, splits: number): void {
  const { out, finish } = product;
  context.dispatch({
    label: ".sum",
    slots: { partial: { value: partial, access: "read" }, ...finish?.slots, out },
    workgroupSize: [256],
    declarations: finish?.declaration ?? "",
    body: `let i = ${flatGroup} * 256u + lane;
if (i >= ${elements}u) { return; }
var total = 0.0f;
for (var split = 0u; split < ${splits}u; split++) { total += partial[split * ${elements}u + i]; }
out[${outStart(product)}i] ${assign(product)} ${out.value.type}(${finished(finish, "i", "total")});`,
    workgroups: gridOf(Math.ceil(elements / 256), limitOf(context)),
  });
}

const outStart = ({ offsets }: Product) => (offsets?.out ? `${offsets.out}u + ` : "");
const assign = ({ accumulate }: Product) => (accumulate ? "+=" : "=");
const finished = (finish: Finish | undefined, place: string, value: string) =>
  finish ? `finish(${place}, ${value})` : value;

function threadsOf({ rows, columns, threadRows, threadColumns }: Tile): number {
  return (rows / threadRows) * (columns / threadColumns);
}

interface Operand {
  readonly array: "a" | "b";
  /** With k innermost. */
  readonly deep: boolean;
  /** Can be read four elements at a time. */
  readonly four: boolean;
  /** Rows or columns of the tile, and of the matrix. */
  readonly size: number;
  readonly bound: number;
  /** Vectors of four from one step of k to the next in workgroup memory; padded where writes would meet in few banks. */
  readonly stride: number;
}

function operandOf({ m, n, k, transposeA, transposeB }: Product, name: "A" | "B", { rows, columns }: Tile): Operand {
  const deep = name === "A" ? !transposeA : transposeB;
  const [size, bound] = name === "A" ? [rows, m] : [columns, n];
  const four = (deep ? k : bound) % 4 === 0;
  return { array: name === "A" ? "a" : "b", deep, four, size, bound, stride: size / 4 + (deep ? 1 : 0) };
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

const lines = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index)).join("\n");

/**
 * How a workgroup brings one operand's tile from memory: into registers while the tile before is still being worked on,
 * and from there into workgroup memory.
 */
function loader(operand: Operand, { depth }: Tile, threads: number, { k }: Product, first: string, start: string) {
  const { array, deep, four, size, bound, stride } = operand;
  const width = four ? 4 : 1;
  const loads = (size * depth) / (width * threads);
  const type = four ? "vec4f" : "f32";
  const held = (load: number) => `next_${array}${load}`;
  const [x, y] = [(load: number) => `x_${array}${load}`, (load: number) => `y_${array}${load}`];
  const places = lines(loads, (load) => {
    const index = `(lane + ${load * threads}u)`;
    const inner = (deep ? depth : size) / width;
    const [outside, inside] = [`${index} / ${inner}u`, `${index} % ${inner}u * ${width}u`];
    const place = `${first} + ${x(load)}`;
    const clamped = bound % size === 0 ? place : `min(${place}, ${bound - (deep ? 1 : width)}u)`;
    return `let ${x(load)} = ${deep ? outside : inside};
let ${y(load)} = ${deep ? inside : outside};
let at_${array}${load} = ${start} + ${deep ? `(${clamped}) * ${k}u` : clamped};
var ${held(load)} = ${type}();`;
  });
  const fetch = (from: string) =>
    lines(loads, (load) => {
      const step = `${from} + ${y(load)}`;
      const ragged = k % depth !== 0;
      const inside = ragged ? `min(${step}, ${k - (deep ? width : 1)}u)` : step;
      const place = `at_${array}${load} + ${deep ? inside : `(${inside}) * ${bound}u`}`;
      const element = `${type}(${array}[${four ? `(${place}) / 4u` : place}])`;
      return `${held(load)} = ${ragged ? `select(${type}(), ${element}, ${step} < last)` : element};`;
    });
  const store = lines(loads, (load) => {
    const slot = (step: number) => `tile${array.toUpperCase()}[(${y(load)} + ${step}u) * ${stride}u + ${x(load)} / 4u]`;
    if (!four) return `${slot(0)}[${x(load)} % 4u] = ${held(load)};`;
    return deep
      ? lines(4, (step) => `${slot(step)}[${x(load)} % 4u] = ${held(load)}[${step}];`)
      : `${slot(0)} = ${held(load)};`;
  });
  return { places, fetch, store };
}

function tileBody(product: Product, tile: Tile, target: Value, cut: Cut, finish: Finish | undefined): string {
  const { m, n, k } = product;
  const { rows, columns, depth, threadRows, threadColumns } = tile;
  const threads = threadsOf(tile);
  const across = columns / threadColumns;
  const { lines: starts, startA, startB } = batchStarts(product);
  const [a, b] = [operandOf(product, "A", tile), operandOf(product, "B", tile)];
  const [loadA, loadB] = [
    loader(a, tile, threads, product, "firstRow", startA),
    loader(b, tile, threads, product, "firstColumn", startB),
  ];
  // A thread's rows and columns lie in groups of four that are far apart, so that neighbours read neighbouring words.
  const [quadsDown, quadsAcross] = [threadRows / 4, threadColumns / 4];
  const row = (index: number) => `threadRow * 4u + ${Math.floor(index / 4) * (rows / quadsDown) + (index % 4)}u`;
  const column = (quad: number) => `threadColumn * 4u + ${quad * (columns / quadsAcross)}u`;

  const isOut = target === product.out.value;
  const assignment = isOut ? assign(product) : "=";
  const storeQuad = (values: string, at: string) => {
    const part = (index: number) => finished(finish, `place + ${at} + ${index}u`, `${values}[${index}]`);
    const whole = finish ? `vec4f(${[0, 1, 2, 3].map(part).join(", ")})` : values;
    if (n % 4 === 0) {
      const store = `out[(place + ${at}) / 4u] ${assignment} vec4<${target.type}>(${whole});`;
      return n % columns === 0 ? store : `if (${at} < ${n}u) { ${store} }`;
    }
    return lines(
      4,
      (index) =>
        `if (${at} + ${index}u < ${n}u) { out[place + ${at} + ${index}u] ${assignment} ${target.type}(${part(index)}); }`,
    );
  };

  return `let block = ${flatGroup};
if (block >= ${cut.groups * cut.splits}u) { return; }
let split = block / ${cut.groups}u;
let batch = (block % ${cut.groups}u) / ${cut.tilesDown * cut.tilesAcross}u;
let tile = block % ${cut.tilesDown * cut.tilesAcross}u;
let firstRow = (tile / ${cut.tilesAcross}u) * ${rows}u;
let firstColumn = (tile % ${cut.tilesAcross}u) * ${columns}u;
let last = min(${k}u, (split + 1u) * ${cut.part}u);
${starts.join("\n")}
let threadRow = lane / ${across}u;
let threadColumn = lane % ${across}u;
${loadA.places}
${loadB.places}
${lines(threadRows, (r) => lines(quadsAcross, (quad) => `var c${r}_${quad} = vec4f();`))}
var depth = split * ${cut.part}u;
if (depth < last) {
${loadA.fetch("depth")}
${loadB.fetch("depth")}
}
for (; depth < last; depth += ${depth}u) {
${loadA.store}
${loadB.store}
workgroupBarrier();
if (depth + ${depth}u < last) {
${loadA.fetch(`depth + ${depth}u`)}
${loadB.fetch(`depth + ${depth}u`)}
}
for (var step = 0u; step < ${depth}u; step++) {
${lines(quadsAcross, (quad) => `let b${quad} = tileB[step * ${b.stride}u + threadColumn + ${(quad * columns) / quadsAcross / 4}u];`)}
${lines(quadsDown, (quad) => `let a${quad} = tileA[step * ${a.stride}u + threadRow + ${(quad * rows) / quadsDown / 4}u];`)}
${lines(threadRows, (r) =>
  lines(quadsAcross, (quad) => {
    const c = `c${r}_${quad}`;
    return `${c} = fma(vec4f(a${Math.floor(r / 4)}[${r % 4}]), b${quad}, ${c});`;
  }),
)}
}
workgroupBarrier();
}
${lines(threadRows, (r) => {
  const store = `let place = ${isOut ? outStart(product) : ""}((split * ${count(product.leading)}u + batch) * ${m}u + row) * ${n}u;
${lines(quadsAcross, (quad) => storeQuad(`c${r}_${quad}`, `(firstColumn + ${column(quad)})`))}`;
  return `{
let row = firstRow + ${row(r)};
${
  m % rows === 0
    ? store
    : `if (row < ${m}u) {
${store}
}`
}
}`;
})}`;
}

/** Where the matrices of `batch` begin in a and b. */
function batchStarts({ leading, leadingA, leadingB, m, n, k, offsets }: Product) {
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
  const startOf = (sizes: readonly number[], matrix: number, offset = 0) => {
    if (count(sizes) === 1) return `${offset}u`;
    return scope.define(`${offset > 0 ? `${offset}u + ` : ""}${place.broadcastFrom(sizes).flat} * ${matrix}u`);
  };
  const [startA, startB] = [startOf(leadingA, m * k, offsets?.a), startOf(leadingB, k * n, offsets?.b)];
  return { lines, startA, startB };
}

/** How a workgroup forms the sums of a few rows and some columns. */
interface FewRows {
  readonly threads: number;
  readonly columns: number;
  /** Operands are read four elements at a time. */
  readonly four: boolean;
  /** Of the sums `c0`, `c1`, ... that a thread has for each row. */
  readonly type: string;
  readonly declarations: string;
  /** Statements that add a thread's share of the columns from `first` on. */
  add(product: Product, names: { readonly b: string; readonly startA: string; readonly startB: string }): string;
  /** Statements that put the sums of all threads together. */
  readonly join: string;
  /** The sum of a row and the column that has the thread's number. */
  total(row: number): string;
}

/**
 * Up to four rows, as in decoding: bound by reading b once. Several products of one a are computed by groups beside each
 * other.
 */
function multiplyFewRows(context: KernelContext, products: readonly Product[]): void {
  const [first] = products;
  if (!first) return;
  const { m, transposeB, leading } = first;
  const batch = count(leading);
  const shape = transposeB ? alongColumns(context, first) : acrossColumns(first);
  const { columns, four } = shape;
  const rows = Array.from({ length: m }, (_, row) => row);
  const groupsOf = ({ n }: Product) => Math.ceil(n / columns);
  const starts = products.map((_, index) => products.slice(0, index).reduce((total, one) => total + groupsOf(one), 0));
  const groups = products.reduce((total, one) => total + groupsOf(one), 0);
  const choose = (body: (product: Product, index: number) => string) =>
    products.length === 1
      ? body(first, 0)
      : products
          .map((product, index) => {
            const end = (starts[index] ?? 0) + groupsOf(product);
            return `${index > 0 ? "else " : ""}if (block < ${end}u) {\n${body(product, index)}\n}`;
          })
          .join("\n");
  const slots: Record<string, Slot> = { a: inFours(first.a, four) };
  const name = (array: string, index: number) => (products.length === 1 ? array : `${array}${index}`);
  products.forEach(({ b, out, finish }, index) => {
    slots[name("b", index)] = inFours(b, four);
    Object.assign(slots, finish?.slots);
    slots[name("out", index)] = out;
  });
  const firstColumn = (index: number) => `let first = (block - ${starts[index]}u) * ${columns}u;`;

  context.dispatch({
    label: products.length === 1 ? ".rows" : `.rows.${products.length}`,
    slots,
    workgroupSize: [shape.threads],
    declarations: `${shape.declarations}
${products.length === 1 ? (first.finish?.declaration ?? "") : ""}`,
    body: `let index = ${flatGroup};
let batch = index / ${groups}u;
let block = index % ${groups}u;
${rows.map((row) => `var c${row} = ${shape.type}();`).join("\n")}
if (batch < ${batch}u) {
${choose((product, index) => {
  const { lines: places, startA, startB } = batchStarts(product);
  return `${firstColumn(index)}
${places.join("\n")}
${shape.add(product, { b: name("b", index), startA, startB })}`;
})}
}
${shape.join}
if (lane < ${columns}u && batch < ${batch}u) {
${choose((product, index) => {
  const { n, out, finish } = product;
  const store = (row: number) => {
    const place = `(batch * ${m}u + ${row}u) * ${n}u + column`;
    return `${name("out", index)}[${outStart(product)}${place}] ${assign(product)} ${out.value.type}(${finished(finish, place, shape.total(row))});`;
  };
  return `${firstColumn(index)}
let column = first + lane;
if (column < ${n}u) {
${rows.map(store).join("\n")}
}`;
})}
}`,
    workgroups: gridOf(groups * batch, limitOf(context)),
  });
}

/** b has k innermost: all threads of a group share the sums of four columns. */
function alongColumns({ device }: KernelContext, { m, k, transposeA }: Product): FewRows {
  // Both with k innermost: four elements at a time.
  const four = k % 4 === 0 && (!transposeA || m === 1);
  const steps = four ? k / 4 : k;
  const threads = steps > 64 ? 128 : 32;
  const rows = Array.from({ length: m }, (_, row) => row);
  const type = four ? "vec4f" : "f32";
  const scaled = (start: string) => (four && start !== "0u" ? `${start} / 4u` : start);
  return {
    threads,
    columns: 4,
    four,
    type: "vec4f",
    declarations: sumOfLanes(device, threads, "vec4f"),
    add({ n }, { b, startA, startB }) {
      const value = (column: number) =>
        `${type}(${b}[${scaled(startB)} + min(first + ${column}u, ${n - 1}u) * ${steps}u + d])`;
      const product = (column: number) => (four ? `dot(x, y${column})` : `x * y${column}`);
      return `for (var d = lane; d < ${steps}u; d += ${threads}u) {
${lines(4, (column) => `let y${column} = ${value(column)};`)}
${rows
  .map((row) => {
    const place = transposeA && !four ? `d * ${m}u + ${row}u` : `${row * steps}u + d`;
    return `{
let x = ${type}(a[${scaled(startA)} + ${place}]);
c${row} += vec4f(${[0, 1, 2, 3].map(product).join(", ")});
}`;
  })
  .join("\n")}
}`;
    },
    join: rows.map((row) => `c${row} = sum_of_lanes(lane, c${row});`).join("\n"),
    total: (row) => `c${row}[lane]`,
  };
}

/** b has its columns innermost: neighbouring threads take neighbouring columns and share k among groups of them. */
function acrossColumns({ m, k, transposeA }: Product): FewRows {
  const [lanes, columns] = [8, 32];
  const threads = lanes * columns;
  const rows = Array.from({ length: m }, (_, row) => row);
  return {
    threads,
    columns,
    four: false,
    type: "f32",
    declarations: `var<workgroup> parts: array<f32, ${threads * m}>;`,
    add({ n }, { b, startA, startB }) {
      return `let column = first + lane % ${columns}u;
if (column < ${n}u) {
for (var d = lane / ${columns}u; d < ${k}u; d += ${lanes}u) {
let value = f32(${b}[${startB} + d * ${n}u + column]);
${rows.map((row) => `c${row} = fma(f32(a[${startA} + ${transposeA ? `d * ${m}u + ${row}u` : `${row * k}u + d`}]), value, c${row});`).join("\n")}
}
}`;
    },
    join: `${rows.map((row) => `parts[${row * threads}u + lane] = c${row};`).join("\n")}
workgroupBarrier();
for (var half = ${threads / 2}u; half >= ${columns}u; half = half >> 1u) {
if (lane < half) {
${rows.map((row) => `parts[${row * threads}u + lane] += parts[${row * threads}u + lane + half];`).join("\n")}
}
workgroupBarrier();
}`,
    total: (row) => `parts[${row * threads}u + lane]`,
  };
}
