// Text that is alike where things are: attributes by their contents, what is large by which it is.

import { Dim } from "../dim.ts";
import type { Attributes } from "./op.ts";

/** Equal for equal attributes. Arrays are compared by contents where they are small, else by the memory they are. */
export function attributesKey(attributes: Attributes): string {
  const plain = (value: unknown): unknown => {
    if (Dim.is(value)) return { dim: value.text };
    if (ArrayBuffer.isView(value)) return { bytes: bytesKey(value) };
    if (typeof value === "number" && !Number.isFinite(value)) return { number: String(value) };
    if (Object.is(value, -0)) return { number: "-0" };
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value === "object" && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, plain(entry)]));
    }
    return value;
  };
  return JSON.stringify(plain(attributes));
}

const identities = new WeakMap<object, number>();
let count = 0;

/** A number that no other object has. */
export function identityOf(object: object): number {
  const identity = identities.get(object) ?? count++;
  identities.set(object, identity);
  return identity;
}

function bytesKey(view: ArrayBufferView): string {
  if (view.byteLength > 256) return memoryKey(view);
  return view.constructor.name + [...new Uint8Array(view.buffer, view.byteOffset, view.byteLength)].join();
}

/** Equal for arrays of one type that are the same memory. */
export function memoryKey(view: ArrayBufferView): string {
  return `${view.constructor.name}@${identityOf(view.buffer)}+${view.byteOffset}:${view.byteLength}`;
}
