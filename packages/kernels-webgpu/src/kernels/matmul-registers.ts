// Tiles that are multiplied in registers: each thread a small block, by vectors of four. Runs on every device.

import type { Capabilities } from "../device.ts";
import type { Operand, Tile } from "./matmul-tiles.ts";
import { lines } from "./product.ts";

interface Block {
  readonly rows: number;
  readonly columns: number;
  readonly threadRows: number;
  readonly threadColumns: number;
}

const blocks: readonly Block[] = [
  { rows: 128, columns: 128, threadRows: 8, threadColumns: 8 },
  { rows: 64, columns: 64, threadRows: 4, threadColumns: 4 },
  { rows: 32, columns: 32, threadRows: 4, threadColumns: 4 },
];

/** From the largest on. */
export function registerTiles({ limits }: Capabilities): readonly Tile[] {
  return blocks.map((block) => {
    // With the padding of operands that have k innermost.
    const bytes = 4 * 16 * (block.rows + block.columns + 8);
    return registerTile(block, bytes <= limits.maxComputeWorkgroupStorageSize ? 16 : 8);
  });
}

function registerTile(block: Block, depth: number): Tile {
  const { rows, columns, threadRows, threadColumns } = block;
  const across = columns / threadColumns;
  // A thread's rows and columns lie in groups of four that are far apart, so that neighbours read neighbouring words.
  const [quadsDown, quadsAcross] = [threadRows / 4, threadColumns / 4];
  const row = (index: number) => `threadRow * 4u + ${Math.floor(index / 4) * (rows / quadsDown) + (index % 4)}u`;
  const column = (quad: number) => `threadColumn * 4u + ${quad * (columns / quadsAcross)}u`;
  // In fours; k lies outside, so that a thread reads its rows and columns four at a time. Padded where writes would meet in
  // few banks.
  const stride = ({ size, deep }: Operand) => size / 4 + (deep ? 1 : 0);
  return {
    by: "",
    ...{ rows, columns, depth, threads: (rows / threadRows) * across },
    widest: 4,
    together: false,
    put(operand, held, x, y) {
      const { array, deep, width } = operand;
      const slot = (step: number) => `tile_${array}[(${y} + ${step}u) * ${stride(operand)}u + ${x} / 4u]`;
      if (width === 1) return `${slot(0)}[${x} % 4u] = ${held};`;
      return deep ? lines(4, (step) => `${slot(step)}[${x} % 4u] = ${held}[${step}];`) : `${slot(0)} = ${held};`;
    },
    multiplier: (a, b) => ({
      declarations: `var<workgroup> tile_a: array<vec4f, ${depth * stride(a)}>;
var<workgroup> tile_b: array<vec4f, ${depth * stride(b)}>;`,
      start: `let threadRow = lane / ${across}u;
let threadColumn = lane % ${across}u;
${lines(threadRows, (r) => lines(quadsAcross, (quad) => `var c${r}_${quad} = vec4f();`))}`,
      add: `for (var step = 0u; step < ${depth}u; step++) {
${lines(quadsAcross, (quad) => `let b${quad} = tile_b[step * ${stride(b)}u + threadColumn + ${(quad * columns) / quadsAcross / 4}u];`)}
${lines(quadsDown, (quad) => `let a${quad} = tile_a[step * ${stride(a)}u + threadRow + ${(quad * rows) / quadsDown / 4}u];`)}
${lines(threadRows, (r) =>
  lines(quadsAcross, (quad) => {
    const c = `c${r}_${quad}`;
    return `${c} = fma(vec4f(a${Math.floor(r / 4)}[${r % 4}]), b${quad}, ${c});`;
  }),
)}
}`,
      store: (storeRow) =>
        lines(threadRows, (r) =>
          storeRow(
            row(r),
            Array.from({ length: quadsAcross }, (_, quad) => ({ sums: `c${r}_${quad}`, column: column(quad) })),
          ),
        ),
    }),
  };
}
