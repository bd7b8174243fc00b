// Matrix products over the last two axes. Operands are read as they lie, transposed or not.

import { sizesOf } from "@sisa/core";
import { count } from "../codegen/index-space.ts";
import { sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import { originOf } from "../fuse.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import { dispatchEach } from "./each.ts";
import { multiplyTiles } from "./matmul-tiles.ts";
import { assign, batchStarts, finished, inFours, lines, outStart, type Product } from "./product.ts";

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
  dispatchEach(context, {
    label: ".small",
    slots: { a: product.a, b: product.b, ...finish?.slots, out },
    declarations: finish?.declaration ?? "",
    elements,
    body: `let column = i % ${n}u;
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
  });
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
    workgroups: context.grid(groups * batch),
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
