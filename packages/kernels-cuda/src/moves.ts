// Copies and zeros that may be done at once, as one launch.

import { packArguments, type StructArgument } from "./device/arguments.ts";
import { kernelEntry } from "./device/kernels.ts";
import type { Step, View } from "./plan.ts";

/** Bytes from one place to another, or zeros where there is no source. */
export interface Move {
  readonly source: View | undefined;
  readonly target: View;
  readonly bytes: number;
}

/** Bytes that a block of threads takes; MOVED in kernels/movement.cu. */
const blockBytes = 32_768;
/** Entries of the table in kernels/movement.cu. */
const mostMoves = 120;

/** Whether the order of two moves matters. */
export function areOrdered(a: Move, b: Move): boolean {
  const overlap = (x: View | undefined, y: View | undefined) =>
    x !== undefined && x.storage === y?.storage && x.offset < y.offset + b.bytes && y.offset < x.offset + a.bytes;
  return overlap(a.target, b.target) || overlap(a.target, b.source) || overlap(a.source, b.target);
}

/** The steps that do some moves, of which no two are ordered. */
export function moveSteps(op: string, moves: readonly Move[]): readonly Step[] {
  const [only] = moves;
  if (only && moves.length === 1) {
    const { source, target, bytes } = only;
    return [source ? { op, kind: "copy", source, target, bytes } : { op, kind: "zero", target, bytes }];
  }
  return Array.from({ length: Math.ceil(moves.length / mostMoves) }, (_, i): Step => {
    const { blocks, table } = packMoves(moves.slice(i * mostMoves, (i + 1) * mostMoves));
    const packed = packArguments("moveMany", kernelEntry("moveMany").parameters, [table]);
    return {
      op,
      kind: "kernel",
      kernel: "moveMany",
      grid: [blocks, 1, 1],
      block: 256,
      sharedBytes: 0,
      mode: "alone",
      packed,
    };
  });
}

/** The structure MoveTable. */
function packMoves(moves: readonly Move[]): { readonly blocks: number; readonly table: StructArgument } {
  const entryBytes = 32;
  const bytes = new Uint8Array(8 + mostMoves * entryBytes);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, moves.length, true);
  let blocks = 0;
  const addresses = moves.flatMap((move, index) => {
    const at = 8 + index * entryBytes;
    view.setBigInt64(at + 16, BigInt(move.bytes), true);
    view.setInt32(at + 24, blocks, true);
    blocks += Math.ceil(move.bytes / blockBytes);
    const target = { at: at + 8, argument: move.target };
    return move.source ? [{ at, argument: move.source }, target] : [target];
  });
  return { blocks, table: { bytes, addresses } };
}
