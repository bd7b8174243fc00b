// Whom it concerns that a kernel found a bad value, on a device whose kernels do nothing: a test says what they report, and
// when a read is done.

import { add, type DeviceTensor, f32, gather, i32, trace } from "@sisa/core";
import { afterEach, expect, test, vi } from "vitest";
import { cuda } from "./backend.ts";
import { Device } from "./device/device.ts";
import { DeviceMemory } from "./device/memory.ts";

afterEach(() => vi.restoreAllMocks());

/** A backend with two programs: rows of a table by their ids, and sums of such rows to a state. */
async function programs() {
  let [address, faultAddress] = [0x1000, 0];
  let found = [0, 0];
  const reads: (() => void)[] = [];
  const next = () => {
    address += 2 ** 20;
    return address;
  };
  const driver = {
    native: { allocate: (bytes: number) => ({ address: next(), buffer: new ArrayBuffer(bytes), free() {} }) },
    call(name: string, target: number) {
      if (name !== "cuMemsetD8Async") return;
      // The first that a backend clears.
      faultAddress ||= target;
      if (target === faultAddress) found = [0, 0];
    },
    handle: next,
    endCapture: next,
    launchAs() {},
  };
  const device = {
    driver,
    stream: 1,
    blocking: false,
    overlaps: true,
    info: { capability: 90, multiprocessors: 132, sharedBytes: 232_448, memoryBytes: 2 ** 36 },
    memory: new DeviceMemory(driver as never),
    kernel: next,
    write() {},
    async read({ bytes }: { readonly bytes: number }) {
      const fault = new Uint8Array(Int32Array.from(found).buffer);
      await new Promise<void>((resolve) => reads.push(resolve));
      return [new Uint8Array(bytes), fault];
    },
    close() {},
  };
  vi.spyOn(Device, "open").mockResolvedValue(device as unknown as Device);
  const backend = await cuda();
  const table = backend.tensor(f32(3, 4));
  const ids = backend.tensor(i32(2));
  const rows = await backend.compile(
    trace({ table: f32(3, 4), ids: i32(2) }, ({ table, ids }) => ({ rows: gather(table, ids) })),
  );
  const sums = await backend.compile(
    trace({ total: f32(2, 4), rows: f32(2, 4) }, ({ total, rows }) => ({ total: add(total, rows) })),
    { state: { total: "total" } },
  );
  return {
    backend,
    rows,
    sums,
    total: backend.tensor(f32(2, 4)),
    /** A run of `rows`. @param bad an id that its kernel finds, the first one that it reports on */
    run(bad?: number): DeviceTensor {
      const result = rows.run({ table, ids });
      if (bad !== undefined && found[0] === 0) found = [1, bad];
      return result.rows;
    },
    /** Ends reads that are on their way. */
    end(count = reads.length) {
      for (const read of reads.splice(0, count)) read();
    },
    /** What a read that is ended at once gives: "right", or the message of its error. */
    async outcome(tensor: DeviceTensor): Promise<string> {
      const content = tensor.read();
      for (const read of reads.splice(0)) read();
      return await content.then(
        () => "right",
        (error: Error) => error.message,
      );
    },
  };
}

const message = (bad: number) => `gather: expected ids from 0 to 2, got ${bad}`;

test("a result that was kept is wrong also after other runs", async () => {
  const { run, outcome } = await programs();
  const before = run().keep();
  expect(await outcome(before)).toBe("right");
  const kept = run(9).keep();
  run();
  run();
  expect(await outcome(kept)).toBe(message(9));
  expect(await outcome(run())).toBe("right");
  // What is known to be right stays so, and what is wrong does.
  expect([await outcome(before), await outcome(kept)]).toEqual(["right", message(9)]);
});

test("what other programs make of a wrong result is wrong, and so is a state until it is written", async () => {
  const { backend, run, sums, total, outcome } = await programs();
  sums.run({ total, rows: run() });
  sums.run({ total, rows: run(-1) });
  sums.run({ total, rows: run() });
  expect(await outcome(total)).toBe(message(-1));
  sums.run({ total, rows: run() });
  expect(await outcome(total)).toBe(message(-1));
  backend.write(total, new Float32Array(8));
  sums.run({ total, rows: run() });
  expect(await outcome(total)).toBe("right");
});

test("a state that is copied, since somebody keeps it, stays as wrong as it was", async () => {
  const { backend, run, sums, total, outcome } = await programs();
  sums.run({ total, rows: run(-1) });
  const kept = total.keep();
  // All else that is read is right.
  sums.run({ total, rows: backend.tensor(f32(2, 4)) });
  expect([await outcome(kept), await outcome(total)]).toEqual([message(-1), message(-1)]);
});

test("a program that is closed does not take its errors along", async () => {
  const { rows, run, outcome } = await programs();
  const kept = run(5).keep();
  rows.close();
  expect(await outcome(kept)).toBe(message(5));
});

test("a read tells of what it was to read, whatever is written there before it ends", async () => {
  const { run, end } = await programs();
  const first = run(7).read();
  const second = run().read();
  end();
  await expect(first).rejects.toThrow(message(7));
  expect(await second).toHaveLength(8);
});

test("reads that find the same on their way tell it once", async () => {
  const { run, end, outcome } = await programs();
  const kept = run(7).keep();
  const both = [kept.read(), kept.read()];
  end(1);
  await expect(both[0]).rejects.toThrow(message(7));
  const wrong = run(8).keep();
  end(1);
  await expect(both[1]).rejects.toThrow(message(7));
  // What was found since is not forgotten.
  expect(await outcome(wrong)).toBe(message(8));
  expect(await outcome(run())).toBe("right");
});
