// Products by tiles: a workgroup computes one tile of the result. How it multiplies what it has brought into workgroup memory
// is the tile's own: by registers (matmul-registers.ts) or by matrix units (matmul-units.ts).

import { count } from "../codegen/index-space.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import type { Ways } from "../device.ts";
import type { Finish, KernelContext } from "../lowering.ts";
import type { Value } from "../program.ts";
import { dispatchEach } from "./each.ts";
import { registerTiles } from "./matmul-registers.ts";
import { assign, batchStarts, finished, inFours, lines, outStart, type Product } from "./product.ts";

/** A workgroup computes rows x columns, `depth` steps of k at a time. */
export interface Tile {
  /** In front of the sizes in a kernel's label; empty for registers. */
  readonly by: string;
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly threads: number;
  /** Elements that a thread fetches at once where lines are multiples of as many: eight halves as they are, or four as float32. */
  readonly widest: 8 | 4;
  /** Compilers must see that lanes stay together: no way out and no bound of a loop is known at run time only. */
  readonly together: boolean;
  /** Statements that put the fetched `held` into workgroup memory, at `x` of the rows or columns and `y` of k. */
  put(operand: Operand, held: string, x: string, y: string): string;
  multiplier(a: Operand, b: Operand): Multiplier;
}

/** How the tile is multiplied, as text. */
export interface Multiplier {
  /** Workgroup memory. */
  readonly declarations: string;
  /** Declares the sums. */
  readonly start: string;
  /** Adds the products of what lies in workgroup memory. */
  readonly add: string;
  /**
   * Stores the sums.
   * @param row statements for a row of the result and for sums in it: four columns each, from `column` on
   */
  store(row: (row: string, quads: readonly { readonly sums: string; readonly column: string }[]) => string): string;
}

/** One of the two arrays, as a tile reads it. */
export interface Operand {
  readonly array: "a" | "b";
  /** With k innermost. */
  readonly deep: boolean;
  /** Elements that a thread fetches at once. */
  readonly width: 8 | 4 | 1;
  /** Rows or columns of the tile, and of the matrix. */
  readonly size: number;
  readonly bound: number;
}

/** Workgroups that keep every core of a large GPU at work: nearly two for each core of an H100. */
const enough = 256;

/** A tile, and the parts that sums over k are cut into. */
interface Choice {
  readonly tile: Tile;
  readonly splits: number;
}

const nameOf = ({ tile, splits }: Choice) =>
  `${tile.by}${tile.rows}x${tile.columns}${splits > 1 ? `.split${splits}` : ""}`;

/** Workgroups that compute a tile each, where nothing is cut. */
const groupsOf = ({ m, n, leading }: Product, { rows, columns }: Tile) =>
  Math.ceil(m / rows) * Math.ceil(n / columns) * count(leading);

/**
 * The largest tile that gives every core work, with sums cut into parts where they are long, and is not mostly padding.
 * Matrix units are so much faster than anything else that the last of their tiles is taken with less work too.
 */
function choiceFor(product: Product, tiles: readonly Tile[]): Choice {
  const { m, n, k, leading } = product;
  for (const [index, tile] of tiles.entries()) {
    const groups = groupsOf(product, tile);
    const splits = splitsFor(groups, k);
    const isLast = tiles[index + 1]?.by !== tile.by;
    const isFull = groups * tile.rows * tile.columns <= 1.5 * m * n * count(leading);
    if ((isFull && (isLast || groups * splits >= enough)) || index === tiles.length - 1) return { tile, splits };
  }
  throw new Error("matmul: no tile");
}

/** Parts that sums over k are cut into: products with few tiles and long sums are what gradients of weights are. */
function splitsFor(groups: number, k: number): number {
  return groups >= enough ? 1 : Math.max(1, Math.min(Math.ceil(enough / groups), Math.floor(k / 256)));
}

/** Chooses by the shape, unless the device knows better by having timed all that there is to choose from. */
export function multiplyTiles(context: KernelContext, product: Product): void {
  const { device } = context;
  const tiles = [...(device.matrixUnit?.tiles(product, device.limits) ?? []), ...registerTiles(device)];
  const fastest = device.fastest?.(context, classOf(product), waysOf(product, tiles));
  if (fastest) fastest(context);
  else multiplyBy(choiceFor(product, tiles), context, product);
}

/** Every tile, without and with sums in parts. */
function waysOf(product: Product, tiles: readonly Tile[]): Ways {
  const choices = tiles.flatMap((tile) =>
    [...new Set([1, splitsFor(groupsOf(product, tile), product.k)])].map((splits) => ({ tile, splits })),
  );
  return new Map(choices.map((choice) => [nameOf(choice), (context) => multiplyBy(choice, context, product)]));
}

/** What the time depends on. */
function classOf({ a, b, out, m, n, k, transposeA, transposeB, leadingA, leadingB }: Product): string {
  const left = `${count(leadingA)}x${m}x${k} ${transposeA ? "down" : "across"} ${a.value.type}`;
  const right = `${count(leadingB)}x${k}x${n} ${transposeB ? "down" : "across"} ${b.value.type}`;
  return `matmul ${left}, ${right}, ${out.value.type}`;
}

function multiplyBy(choice: Choice, context: KernelContext, product: Product): void {
  const { m, n, k, leading, out } = product;
  const batch = count(leading);
  const { tile, splits } = choice;
  const { rows, columns, depth, threads } = tile;
  const [tilesDown, tilesAcross] = [Math.ceil(m / rows), Math.ceil(n / columns)];
  const groups = tilesDown * tilesAcross * batch;
  const part = Math.ceil(k / splits / depth) * depth;
  const partial = splits > 1 ? context.scratch("f32", splits * batch * m * n) : undefined;
  const target: Slot = partial ? { value: partial, access: "read_write" } : out;
  const finish = partial ? undefined : product.finish;
  const [a, b] = [operandOf(product, "a", tile), operandOf(product, "b", tile)];
  const multiplier = tile.multiplier(a, b);
  const workgroups = context.grid(groups * splits);
  context.dispatch({
    label: `.${nameOf(choice)}`,
    slots: {
      a: asFetched(product.a, a),
      b: asFetched(product.b, b),
      ...finish?.slots,
      out: inFours(target, n % 4 === 0),
    },
    workgroupSize: [threads],
    declarations: `${multiplier.declarations}
${finish?.declaration ?? ""}`,
    body: tileBody(
      product,
      tile,
      multiplier,
      target.value,
      { tilesDown, tilesAcross, groups, splits, part, isLine: workgroups[1] === 1 },
      finish,
    ),
    workgroups,
  });
  if (partial) addParts(context, partial, product, batch * m * n, splits);
}

/** Adds up what the splits computed, in a fixed order. */
function addParts(context: KernelContext, partial: Value, product: Product, elements: number, splits: number): void {
  const { out, finish } = product;
  dispatchEach(context, {
    label: ".sum",
    slots: { partial: { value: partial, access: "read" }, ...finish?.slots, out },
    declarations: finish?.declaration ?? "",
    elements,
    body: `var total = 0.0f;
for (var split = 0u; split < ${splits}u; split++) { total += partial[split * ${elements}u + i]; }
out[${outStart(product)}i] ${assign(product)} ${out.value.type}(${finished(finish, "i", "total")});`,
  });
}

function operandOf({ m, n, k, transposeA, transposeB }: Product, array: "a" | "b", tile: Tile): Operand {
  const deep = array === "a" ? !transposeA : transposeB;
  const [size, bound] = array === "a" ? [tile.rows, m] : [tile.columns, n];
  const fits = (deep ? k : bound) % tile.widest === 0;
  return { array, deep, width: fits ? tile.widest : 1, size, bound };
}

/** Halves are fetched as whole words: several times as fast as vectors of halves, as measured on an H100. */
function asFetched(slot: Slot, { width }: Operand): Slot {
  if (slot.value.type !== "f16") return inFours(slot, width === 4);
  return width === 1 ? slot : { ...slot, type: width === 8 ? "vec4<u32>" : "vec2<u32>" };
}

interface Cut {
  readonly tilesDown: number;
  readonly tilesAcross: number;
  readonly groups: number;
  readonly splits: number;
  readonly part: number;
  /** Whether the grid is one line of workgroups, without any too many. */
  readonly isLine: boolean;
}

/**
 * How a workgroup brings one operand's tile from memory: into registers while the tile before is still being worked on,
 * and from there into workgroup memory.
 */
function loader(operand: Operand, tile: Tile, product: Product, part: number, first: string, start: string) {
  const { array, deep, width, size, bound } = operand;
  const { depth, threads } = tile;
  const { k } = product;
  const loads = (size * depth) / (width * threads);
  const type = { 8: "vec4u", 4: "vec4f", 1: "f32" }[width];
  const widen = width === 4 && product[array].value.type === "f16" ? "four_halves" : type;
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
      const ragged = k % depth !== 0 || (tile.together && k % part !== 0);
      const inside = ragged ? `min(${step}, ${k - (deep ? width : 1)}u)` : step;
      const place = `at_${array}${load} + ${deep ? inside : `(${inside}) * ${bound}u`}`;
      const value = `${widen}(${array}[${width > 1 ? `(${place}) / ${width}u` : place}])`;
      return `${held(load)} = ${ragged ? `select(${type}(), ${value}, ${step} < last)` : value};`;
    });
  const store = lines(loads, (load) => tile.put(operand, held(load), x(load), y(load)));
  return { places, fetch, store };
}

function tileBody(
  product: Product,
  tile: Tile,
  multiplier: Multiplier,
  target: Value,
  cut: Cut,
  finish: Finish | undefined,
): string {
  const { m, n, k } = product;
  const { rows, columns, depth } = tile;
  const { lines: starts, startA, startB } = batchStarts(product);
  const loadA = loader(operandOf(product, "a", tile), tile, product, cut.part, "firstRow", startA);
  const loadB = loader(operandOf(product, "b", tile), tile, product, cut.part, "firstColumn", startB);

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

  const fetch = (from: string) => `${loadA.fetch(from)}
${loadB.fetch(from)}`;
  return `${
    tile.together && cut.isLine
      ? "let block = group.x;"
      : `let block = ${flatGroup};
if (block >= ${cut.groups * cut.splits}u) { return; }`
  }
let split = block / ${cut.groups}u;
let batch = (block % ${cut.groups}u) / ${cut.tilesDown * cut.tilesAcross}u;
let tile = block % ${cut.tilesDown * cut.tilesAcross}u;
let firstRow = (tile / ${cut.tilesAcross}u) * ${rows}u;
let firstColumn = (tile % ${cut.tilesAcross}u) * ${columns}u;
let begin = split * ${cut.part}u;
let last = min(${k}u, begin + ${cut.part}u);
${starts.join("\n")}
${loadA.places}
${loadB.places}
${multiplier.start}
${
  tile.together
    ? `${fetch("begin")}
for (var done = 0u; done < ${cut.part}u; done += ${depth}u) {
let depth = begin + done;`
    : `var depth = begin;
if (depth < last) {
${fetch("depth")}
}
for (; depth < last; depth += ${depth}u) {`
}
${loadA.store}
${loadB.store}
workgroupBarrier();
if (${tile.together ? `done + ${depth}u < ${cut.part}u` : `depth + ${depth}u < last`}) {
${fetch(`depth + ${depth}u`)}
}
${multiplier.add}
workgroupBarrier();
}
${multiplier.store((row, quads) => {
  const store = `let place = ${isOut ? outStart(product) : ""}((split * ${count(product.leading)}u + batch) * ${m}u + row) * ${n}u;
${quads.map(({ sums, column }) => storeQuad(sums, `(firstColumn + ${column})`)).join("\n")}`;
  return `{
let row = firstRow + ${row};
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
