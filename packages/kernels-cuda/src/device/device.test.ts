// What copies to a device wait for, and what is given back when, on a driver that only takes notes: work that is enqueued is
// done when a test says so.

import { DisposedError } from "@sisa/core";
import { afterEach, expect, test, vi } from "vitest";
import { Device } from "./device.ts";
import { Native } from "./native.ts";

afterEach(() => vi.restoreAllMocks());

const [notReady, contextDestroyed, hopper] = [600, 709, 9];

function recording() {
  /** What is enqueued and not done. */
  const queue: (() => void)[] = [];
  const pinned = new Map<number, ArrayBuffer>();
  const pending = new Map<number, boolean>();
  const sources: ("pinned" | "plain")[] = [];
  /** Bytes on the device, by address. */
  const written = new Map<number, Uint8Array>();
  let [address, freedInUse, late, isClosed] = [0x1000, 0, 0, false];
  const next = () => {
    address += 2 ** 20;
    return address;
  };
  const set = (out: number[], value = next()) => {
    out[0] = value;
    return value;
  };
  const work = (count = queue.length) => {
    for (const step of queue.splice(0, count)) step();
  };
  const calls: { readonly [name: string]: (...args: never[]) => number | undefined } = {
    cuDriverGetVersion: (out: number[]) => void set(out, 13_000),
    cuDeviceGetCount: (out: number[]) => void set(out, 1),
    cuDeviceGetAttribute: (out: number[]) => void set(out, hopper),
    cuMemHostAlloc: (out: number[], bytes: number) => void pinned.set(set(out), new ArrayBuffer(bytes)),
    cuMemFreeHost(place: number) {
      if (queue.length > 0) freedInUse += 1;
      return pinned.delete(place) ? 0 : 1;
    },
    cuEventCreate: (out: number[]) => void pending.set(set(out), false),
    cuEventDestroy: (event: number) => (pending.delete(event) ? 0 : 1),
    cuEventRecord(event: number) {
      pending.set(event, true);
      queue.push(() => pending.set(event, false));
      return 0;
    },
    cuEventQuery: (event: number) => (pending.get(event) ? notReady : 0),
    cuStreamSynchronize: () => void work(),
    cuDevicePrimaryCtxRelease() {
      isClosed = true;
      return 0;
    },
    // Of memory that is not pinned the caller waits for the copy.
    cuMemcpyHtoDAsync(target: number, data: ArrayBufferView<ArrayBuffer>, bytes: number) {
      const view = new Uint8Array(data.buffer, data.byteOffset, bytes);
      const isPinned = [...pinned.values()].includes(data.buffer);
      sources.push(isPinned ? "pinned" : "plain");
      queue.push(() => written.set(target, view.slice()));
      if (!isPinned) work();
      return 0;
    },
  };
  const func = (prototype: string) => {
    const [, name = ""] = /(\w+?)(?:_v2)?\(/.exec(prototype) ?? [];
    return (...args: readonly unknown[]) => {
      if (isClosed) {
        late += 1;
        return contextDestroyed;
      }
      const call = calls[name] as ((...all: readonly unknown[]) => number | undefined) | undefined;
      if (call) return call(...args) ?? 0;
      if (Array.isArray(args[0])) set(args[0]);
      return 0;
    };
  };
  const native = {
    open: (path: string) => ({ path, func }),
    allocate: (bytes: number) => ({ address: next(), buffer: new ArrayBuffer(bytes), free() {} }),
    view: (place: number) => pinned.get(place),
  };
  vi.spyOn(Native, "load").mockResolvedValue(native as unknown as Native);
  return { work, queue, pinned, pending, sources, written, freedInUse: () => freedInUse, late: () => late };
}

/** So many bytes, none of which is 0. */
function bytesOf(count: number, first = 1): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let index = 0; index < count; index++) bytes[index] = 1 + ((first + index) % 255);
  return bytes;
}

const [smallest, largest] = [2 ** 16 + 1, 2 ** 24];

test("from 64 KB up to 16 MB arrays are copied from pinned memory, others from where they are", async () => {
  const { sources, pinned } = recording();
  const device = await Device.open(0);
  const kindOf = (bytes: number) => {
    device.write(256, new Uint8Array(bytes));
    return sources.splice(0);
  };
  expect([4, smallest - 1, largest + 1].map(kindOf)).toEqual([["plain"], ["plain"], ["plain"]]);
  expect(pinned.size).toBe(0);
  expect([smallest, largest].map(kindOf)).toEqual([["pinned"], ["pinned"]]);
  expect(kindOf(0)).toEqual([]);
});

test.each([100, smallest, largest + 4])("an array of %i bytes may be changed at once", async (count) => {
  const { work, written } = recording();
  const device = await Device.open(0);
  // A part of something longer, which begins anywhere.
  const whole = bytesOf(count + 8);
  const array = whole.subarray(3, 3 + count);
  const wanted = array.slice();
  device.write(256, array);
  whole.fill(0);
  work();
  expect(Buffer.compare(written.get(256) ?? new Uint8Array(), wanted)).toBe(0);
});

test("pinned memory is given back when its own copy is done, and not before", async () => {
  const { work, written, pinned } = recording();
  const device = await Device.open(0);
  const arrays = [0, 1, 2, 3].map((first) => bytesOf(smallest, first));
  const write = (index: number) => device.write(256 * index, arrays[index] as Uint8Array);
  write(0);
  write(1);
  expect(pinned.size).toBe(2);
  // The copy of the first, but nothing that tells of it.
  work(1);
  write(2);
  expect(pinned.size).toBe(3);
  work(1);
  write(3);
  expect(pinned.size).toBe(3);
  work();
  for (const [index, array] of arrays.entries()) {
    expect(Buffer.compare(written.get(256 * index) ?? new Uint8Array(), array)).toBe(0);
  }
});

test("at most 16 copies from pinned memory are on their way", async () => {
  const { work, queue, sources, pinned, pending } = recording();
  const device = await Device.open(0);
  const write = () => device.write(256, new Uint8Array(smallest));
  for (let count = 0; count < 16; count++) write();
  expect([queue.length, pinned.size, pending.size]).toEqual([32, 16, 16]);
  expect(sources.splice(0)).toEqual(new Array(16).fill("pinned"));
  write();
  expect(sources.splice(0)).toEqual(["plain"]);
  expect(pinned.size).toBe(16);
  // The plain copy waited for all that was before it; many rounds take no more memory and no more events.
  for (let round = 0; round < 5; round++) {
    for (let count = 0; count < 16; count++) write();
    expect(sources.splice(0)).toEqual(new Array(16).fill("pinned"));
    work();
  }
  expect([pinned.size, pending.size]).toEqual([16, 16]);
});

test("closing waits for copies, and then gives all back", async () => {
  const { work, queue, written, pinned, pending, freedInUse } = recording();
  const device = await Device.open(0);
  for (let count = 0; count < 3; count++) device.write(256, bytesOf(smallest));
  work();
  const last = bytesOf(2 * smallest, 7);
  for (let count = 0; count < 5; count++) device.write(256 * count, last);
  await Promise.all([device.finished(), work()]);
  device.write(0, last);
  device.write(2 ** 19, last);
  expect(queue.length).toBe(4);
  device.close();
  expect(Buffer.compare(written.get(2 ** 19) ?? new Uint8Array(), last)).toBe(0);
  expect([queue.length, freedInUse(), pinned.size, pending.size]).toEqual([0, 0, 0, 0]);
});

test("what is read while the device is closed is refused, and its memory given back", async () => {
  const { pinned, pending, late } = recording();
  const device = await Device.open(0);
  const range = { address: 256, bytes: 1000 };
  // The large one is more than what is kept for the next read.
  const large = { address: 256, bytes: 2 ** 26 + 4 };
  const waiting = [device.read(range, range), device.read(large, range), device.finished()];
  device.close();
  expect([pinned.size, pending.size]).toEqual([0, 0]);
  const ends = await Promise.allSettled(waiting);
  expect(ends).toEqual(
    waiting.map(() => ({ status: "rejected", reason: new DisposedError("cuda: the backend is closed") })),
  );
  // The context is gone, and all that was in it.
  expect(late()).toBe(0);
});
