// Which temporaries share a buffer: those whose lives do not overlap. Decided once, when a graph is compiled.

import { sizeClass } from "./buffers.ts";
import type { Kernel, Value } from "./program.ts";

export interface Plan {
  /** Size in bytes of each buffer. */
  readonly buffers: readonly number[];
  /** For each temporary, which of them. */
  readonly places: ReadonlyMap<Value, number>;
}

/** A value lives from the kernel that writes it first to the last one that reads it. */
export function planBuffers(kernels: readonly Kernel[]): Plan {
  const last = new Map<Value, number>();
  kernels.forEach(({ bindings }, step) => {
    for (const { value } of bindings) if (value.role.kind === "temporary") last.set(value, step);
  });
  const buffers: number[] = [];
  const free = new Map<number, number[]>();
  const places = new Map<Value, number>();
  kernels.forEach(({ bindings }, step) => {
    const temporaries = bindings.flatMap(({ value }) => (value.role.kind === "temporary" ? [value] : []));
    for (const value of temporaries) {
      if (places.has(value)) continue;
      const size = sizeClass(value.bytes);
      places.set(value, free.get(size)?.pop() ?? buffers.push(size) - 1);
    }
    // What is read for the last time here may be overwritten from the next kernel on.
    for (const value of new Set(temporaries)) {
      const place = places.get(value);
      if (last.get(value) !== step || place === undefined) continue;
      const size = sizeClass(value.bytes);
      free.set(size, [...(free.get(size) ?? []), place]);
    }
  });
  return { buffers, places };
}
