// GPU memory: whole buffers of a few sizes, so that what one value no longer needs serves another.

import { usage } from "./device.ts";
import { OutOfMemoryError } from "./errors.ts";

/** Free buffers are kept for reuse up to this many bytes; beyond it they go back to the device. */
const keptBytes = 64 * 2 ** 20;

const smallest = 256;

/** The size of the buffer for so many bytes: powers of two, each interval cut in four. */
export function sizeClass(bytes: number): number {
  if (bytes <= smallest) return smallest;
  const step = Math.max(smallest, 2 ** (Math.floor(Math.log2(bytes - 1)) - 2));
  return Math.ceil(bytes / step) * step;
}

export class BufferPool {
  readonly #device: GPUDevice;
  readonly #maximumBytes: number;
  readonly #free = new Map<number, GPUBuffer[]>();
  readonly #live = new Set<GPUBuffer>();
  #freeBytes = 0;
  #deviceBytes = 0;

  /** @param maximumBytes largest buffer that a kernel can be given */
  constructor(device: GPUDevice, maximumBytes: number) {
    this.#device = device;
    this.#maximumBytes = maximumBytes;
  }

  /** Bytes of all buffers, in use or kept for reuse. */
  get deviceBytes(): number {
    return this.#deviceBytes;
  }

  /**
   * A buffer of at least so many bytes. Its contents are whatever was in it; new ones are zero.
   * @param what named in the error
   * @throws OutOfMemoryError where no kernel could be given that much at once
   */
  take(bytes: number, what: string): GPUBuffer {
    const size = Math.min(sizeClass(bytes), this.#maximumBytes - (this.#maximumBytes % 4));
    if (bytes > size) {
      throw new OutOfMemoryError(
        `webgpu: ${what} needs ${bytes} bytes, this device takes at most ${this.#maximumBytes} in one tensor; cut it into parts, or use a smaller batch`,
      );
    }
    const reused = this.#free.get(size)?.pop();
    if (reused) {
      this.#freeBytes -= size;
      return reused;
    }
    const buffer = this.#device.createBuffer({ size, usage: usage.storage | usage.copySource | usage.copyTarget });
    this.#live.add(buffer);
    this.#deviceBytes += size;
    return buffer;
  }

  /** Gives up a buffer for good, wherever it is. */
  drop(buffer: GPUBuffer): void {
    const list = this.#free.get(buffer.size) ?? [];
    const index = list.indexOf(buffer);
    if (index >= 0) {
      list.splice(index, 1);
      this.#freeBytes -= buffer.size;
    }
    this.#destroy(buffer);
  }

  /** Gives a buffer back. What is enqueued may still use it; whatever takes it next comes later in the queue. */
  release(buffer: GPUBuffer): void {
    if (!this.#live.has(buffer)) return;
    if (this.#freeBytes + buffer.size > keptBytes) {
      this.#destroy(buffer);
      return;
    }
    const list = this.#free.get(buffer.size) ?? [];
    list.push(buffer);
    this.#free.set(buffer.size, list);
    this.#freeBytes += buffer.size;
  }

  #destroy(buffer: GPUBuffer): void {
    if (!this.#live.delete(buffer)) return;
    this.#deviceBytes -= buffer.size;
    buffer.destroy();
  }

  close(): void {
    for (const buffer of this.#live) this.#destroy(buffer);
    this.#free.clear();
    this.#freeBytes = 0;
  }
}
