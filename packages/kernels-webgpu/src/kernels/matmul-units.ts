// Tiles of halves that are multiplied by matrix units, with sums in float32: WGSL's subgroup matrices, an experimental
// extension that Dawn has behind a flag. Each subgroup computes a block of the tile.

import type { DeviceLimits } from "../device.ts";
import type { MatrixSize } from "../matrix-unit.ts";
import type { Operand, Tile } from "./matmul-tiles.ts";
import { lines, type Product } from "./product.ts";

interface Blocks {
  /** Subgroups down and across a tile, and what each computes. */
  readonly down: number;
  readonly across: number;
  readonly rows: number;
  readonly columns: number;
}

const shapes: readonly Blocks[] = [
  { down: 2, across: 4, rows: 64, columns: 32 },
  { down: 2, across: 2, rows: 32, columns: 32 },
];
const depth = 32;

/** From the largest on; none where the operands are no halves in lines of eights. */
export function unitTiles(product: Product, unit: MatrixSize, limits: DeviceLimits): readonly Tile[] {
  const { a, b, m, n, k, transposeA, transposeB, offsets } = product;
  const lines = [transposeA ? m : k, transposeB ? k : n, offsets?.a ?? 0, offsets?.b ?? 0];
  if (a.value.type !== "f16" || b.value.type !== "f16" || lines.some((size) => size % 8 > 0)) return [];
  return shapes
    .filter((shape) => storageOf(shape, unit) <= limits.maxComputeWorkgroupStorageSize)
    .map((shape) => unitTile(shape, unit));
}

// Lines of both operands begin at multiples of 16 bytes and in different banks.
const padding = 8;

/** Bytes of workgroup memory at most. */
function storageOf({ down, across, rows, columns }: Blocks, { m, n }: MatrixSize): number {
  const operands = 2 * (depth + padding) * (down * rows + across * columns);
  return operands + 4 * down * across * m * n;
}

function unitTile({ down, across, rows, columns }: Blocks, unit: MatrixSize): Tile {
  const { m, n, k, lanes } = unit;
  const threads = lanes * down * across;
  // As in memory: lines of k, or of rows or columns.
  const stride = ({ deep, size }: Operand) => (deep ? depth : size) + padding;
  const elements = (operand: Operand) => stride(operand) * (operand.deep ? operand.size : depth);
  const [matricesDown, matricesAcross] = [rows / m, columns / n];
  /** A matrix of an operand: `from` is its first row or column. */
  const load = (operand: Operand, from: string) => {
    const { array, deep } = operand;
    const line = stride(operand);
    const type = array === "a" ? `subgroup_matrix_left<f16, ${k}, ${m}>` : `subgroup_matrix_right<f16, ${n}, ${k}>`;
    const place = deep ? `(${from}) * ${line}u + step` : `step * ${line}u + ${from}`;
    // Where k is inside a line, a line is a row of a, and a column of b.
    const order = deep === (array === "a") ? "row_major" : "col_major";
    return `subgroupMatrixLoad<${type}, ${order}>(&tile_${array}, (${place}) / 8u, ${line / 8}u)`;
  };
  const each = (text: (i: number, j: number) => string) =>
    lines(matricesDown, (i) => lines(matricesAcross, (j) => text(i, j)));
  return {
    by: "units",
    ...{ rows: down * rows, columns: across * columns, depth, threads },
    widest: 8,
    together: true,
    put(operand, held, x, y) {
      const place = operand.deep ? `${x} * ${stride(operand)}u + ${y}` : `${y} * ${stride(operand)}u + ${x}`;
      return `tile_${operand.array}[(${place}) / 8u] = ${held};`;
    },
    multiplier: (a, b) => ({
      declarations: `var<workgroup> tile_a: array<vec4u, ${elements(a) / 8}>;
var<workgroup> tile_b: array<vec4u, ${elements(b) / 8}>;
var<workgroup> sums: array<f32, ${down * across * m * n}>;`,
      start: `let blockRow = subgroup_id / ${across}u * ${rows}u;
let blockColumn = subgroup_id % ${across}u * ${columns}u;
${each((i, j) => `var c${i}_${j} = subgroup_matrix_result<f32, ${n}, ${m}>();`)}`,
      add: `for (var step = 0u; step < ${depth}u; step += ${k}u) {
${lines(matricesDown, (i) => `let a${i} = ${load(a, `blockRow + ${i * m}u`)};`)}
${lines(matricesAcross, (j) => `let b${j} = ${load(b, `blockColumn + ${j * n}u`)};`)}
${each((i, j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`)}
}`,
      // Through workgroup memory, one matrix of each subgroup at a time: single sums cannot be reached.
      store: (storeRow) =>
        each((i, j) => {
          const row = `quad / ${(m * n) / 4}u / ${across}u * ${rows}u + quad % ${(m * n) / 4}u / ${n / 4}u + ${i * m}u`;
          const column = `quad / ${(m * n) / 4}u % ${across}u * ${columns}u + quad % ${n / 4}u * 4u + ${j * n}u`;
          return `subgroupMatrixStore<row_major>(&sums, subgroup_id * ${m * n}u, c${i}_${j}, ${n}u);
workgroupBarrier();
for (var quad = lane; quad < ${(down * across * m * n) / 4}u; quad += ${threads}u) {
let own = vec4f(sums[quad * 4u], sums[quad * 4u + 1u], sums[quad * 4u + 2u], sums[quad * 4u + 3u]);
${storeRow(row, [{ sums: "own", column }])}
}
workgroupBarrier();`;
        }),
    }),
  };
}
