// Functions of WGSL that combine one number of every lane of a workgroup: by subgroups where the device has them, else by
// a tree in workgroup memory. Every lane calls them, and every lane gets the result.
//
// Nothing is assumed of subgroups: how many lanes they have, whether all are full, and which lanes are in which one.

import type { Capabilities } from "../device.ts";

/** What a combination is of; vectors are combined element by element. */
type Combined = "f32" | "vec2f" | "vec4f" | "i32";

/** Declares `sum_of_lanes(lane: u32, value: type) -> type`, in the same order of additions every time. */
export function sumOfLanes(device: Capabilities, lanes: number, type: Combined = "f32"): string {
  const add = (a: string, b: string) => `${a} + ${b}`;
  return declare(device, { name: "sum", lanes, type, start: `${type}()`, combine: add, ofSubgroup: addedUp });
}

/** Declares `max_of_lanes(lane: u32, value: f32) -> f32`. One NaN makes the result NaN. */
export function maxOfLanes(device: Capabilities, lanes: number): string {
  const largest = (a: string, b: string) => `maximum(${a}, ${b})`;
  const ofSubgroup = (x: string) => `select(subgroupMax(${x}), notANumber(), subgroupAny(isNaN(${x})))`;
  return declare(device, { name: "max", lanes, type: "f32", start: "-infinity()", combine: largest, ofSubgroup });
}

const addedUp = (x: string) => `subgroupAdd(${x})`;

interface Combination {
  readonly name: string;
  readonly lanes: number;
  readonly type: Combined;
  /** What changes nothing. */
  readonly start: string;
  readonly combine: (a: string, b: string) => string;
  readonly ofSubgroup: (x: string) => string;
}

function declare(device: Capabilities, { name, lanes, type, start, combine, ofSubgroup }: Combination): string {
  const held = `${name}_held`;
  const body = device.features.has("subgroups")
    ? `let own = ${ofSubgroup("value")};
${held}[lane] = select(${start}, own, subgroupElect());
workgroupBarrier();
let active_lanes = subgroupAdd(1u);
var rest = ${start};
for (var n = subgroupExclusiveAdd(1u); n < ${lanes}u; n += active_lanes) { rest = ${combine("rest", `${held}[n]`)}; }
let result = ${ofSubgroup("rest")};`
    : `${held}[lane] = value;
workgroupBarrier();
for (var half = ${lanes / 2}u; half > 0u; half = half >> 1u) {
if (lane < half) { ${held}[lane] = ${combine(`${held}[lane]`, `${held}[lane + half]`)}; }
workgroupBarrier();
}
let result = ${held}[0];`;
  // Waits once more at the end: what comes next may combine something else in the same memory.
  return `var<workgroup> ${held}: array<${type}, ${lanes}>;
fn ${name}_of_lanes(lane: u32, value: ${type}) -> ${type} {
${body}
workgroupBarrier();
return result;
}`;
}
