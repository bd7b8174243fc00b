// Sums by row on a device: which updates go to which row, and in which order they are added, bit for bit.

import { f32, i32, scatterAdd, trace } from "@sisa/core";
import { expect, test } from "vitest";
import { cuda } from "../backend.ts";
import { missingDevice } from "../testing.ts";

const missing = await missingDevice();
const columns = 3;

/** [rows, ids]; rows of one, two and three digits of the sort, blocks of it that are full, and that are not. */
const cases: { readonly [name: string]: readonly [rows: number, ids: readonly number[]] } = {
  "one id": [300, [299]],
  "all equal": [50_277, new Array(3000).fill(50_276)],
  "all different": [4096, range(4096)],
  "all different, from the last": [70_000, range(5000).map((i) => 69_999 - 13 * i)],
  "each id in every block": [255, range(3 * 1024).map((i) => i % 255)],
  "one more row than a digit holds": [256, range(1500).map((i) => 255 - ((7 * i) % 256))],
  "a few frequent, many rare": [50_277, range(20_000).map((i) => (i % 3 === 0 ? 17 : (i * 7919) % 50_277))],
};

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

const graphOf = (rows: number, count: number) =>
  trace({ updates: f32(count, columns), ids: i32(count) }, ({ updates, ids }) => scatterAdd(updates, ids, { rows }));

for (const [name, [rows, ids]] of Object.entries(cases)) {
  test(`rows are summed in order of index: ${name}`, async ({ skip }) => {
    if (missing !== undefined) return skip(`not run: no device (${missing})`);
    // Sums in float32 of such numbers tell every order from every other.
    const updates = Float32Array.from({ length: ids.length * columns }, (_, i) => Math.sin(i + 1) * 10 ** (i % 5));
    const wanted = new Float32Array(rows * columns);
    for (const [index, id] of ids.entries()) {
      for (let column = 0; column < columns; column++) {
        const place = id * columns + column;
        wanted[place] = (wanted[place] ?? 0) + (updates[index * columns + column] ?? 0);
      }
    }
    await using backend = await cuda();
    const program = await backend.compile(graphOf(rows, ids.length));
    const inputs = {
      updates: backend.tensor(f32(ids.length, columns), updates),
      ids: backend.tensor(i32(ids.length), Int32Array.from(ids)),
    };
    for (let run = 0; run < 3; run++) expect(await program.run(inputs).value.read()).toEqual(wanted);
  });
}

test("an id that is no row is named, wherever it stands", async ({ skip }) => {
  if (missing !== undefined) return skip(`not run: no device (${missing})`);
  await using backend = await cuda();
  const program = await backend.compile(graphOf(256, 3000));
  const updates = backend.tensor(f32(3000, columns), new Float32Array(3000 * columns).fill(1));
  for (const bad of [-1, 256, 2 ** 31 - 1, -(2 ** 31)]) {
    const ids = Int32Array.from(range(3000), (i) => (i === 2500 ? bad : i % 256));
    const { value } = program.run({ updates, ids: backend.tensor(i32(3000), ids) });
    await expect(value.read()).rejects.toThrow(String(bad));
  }
});
