// Helpers of this package's own tests. No entry exports it.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

const folders: string[] = [];

/** A fresh folder that is removed after the test file has run. */
export async function temporaryFolder(): Promise<string> {
  if (folders.length === 0) {
    afterAll(async () => {
      for (const folder of folders) await rm(folder, { recursive: true, force: true });
    });
  }
  const folder = await mkdtemp(join(tmpdir(), "sisa-hub-"));
  folders.push(folder);
  return folder;
}

/** Seeded numbers in [0, 1), the same on every run. Source: mulberry32, Tommy Ettinger, public domain. */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Folder of the files that other programs wrote. */
export const fixtures = new URL("../test/fixtures/", import.meta.url);
