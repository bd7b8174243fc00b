// The text of a compute shader around a kernel's own part: what is bound, and the functions that it calls.

import type { Binding, Kernel, Value } from "../program.ts";
import { libraryFor } from "./library.ts";

/** Something that a kernel reads or writes, under the name that its code has for it. */
export interface Slot {
  /** The memory behind it. */
  readonly value: Value;
  /** Whether the kernel reads it, or reads and writes. */
  readonly access: Binding["access"];
  /** Elements of the array as the kernel sees it; default the value's own type. */
  readonly type?: string;
}

/** What a kernel's own part is made of. */
export interface ShaderParts {
  /** As in errors and profiles. */
  readonly label: string;
  /** By name. Names that stand for one value share one binding. */
  readonly slots: { readonly [name: string]: Slot };
  /** Lanes along x, y and z; y and z default to 1. */
  readonly workgroupSize: readonly [number, number?, number?];
  /** Declarations of the module: workgroup memory, functions. */
  readonly declarations?: string;
  /** Body of the entry point. It sees `group`, `groups`, `lane` (index in the workgroup), `local`, and `subgroup_id`. */
  readonly body: string;
  /** How many run along x, y and z. */
  readonly workgroups: readonly [number, number, number];
}

export function shader(parts: ShaderParts): Kernel {
  const { label, slots, workgroupSize, declarations = "", body, workgroups } = parts;
  const bindings: Binding[] = [];
  const header: string[] = [];
  for (const [name, { value, access, type }] of Object.entries(slots)) {
    const element = type ?? value.type;
    header.push(`@group(0) @binding(${bindings.length}) var<storage, ${access}> ${name}: array<${element}>;`);
    bindings.push({ value, access });
  }
  const subgroup = /\bsubgroup_id\b/.test(body) ? ", @builtin(subgroup_id) subgroup_id: u32" : "";
  const own = `${declarations}
@compute @workgroup_size(${workgroupSize.join(", ")})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3u${subgroup}) {
${body}
}`;
  const uses = (pattern: RegExp) => pattern.test(own) || header.some((line) => pattern.test(line));
  const enables = [
    ...(uses(/\bf16\b/) ? ["enable f16;"] : []),
    ...(uses(/\bsubgroup[A-Z_]/) ? ["enable subgroups;"] : []),
    // What a subgroup does depends on its number alone, which is the same for all of its lanes.
    ...(uses(/\bsubgroupMatrix/)
      ? ["enable chromium_experimental_subgroup_matrix;", "diagnostic(off, chromium.subgroup_matrix_uniformity);"]
      : []),
  ];
  const code = [...enables, ...header, libraryFor(own), own].join("\n");
  return { label, code: `${code}\n`, bindings, workgroups };
}

/** Workgroups for so many, in a grid that respects the limit of one dimension. Kernels count them by `flatGroup`. */
export function gridOf(count: number, limit: number): readonly [number, number, number] {
  if (count <= limit) return [Math.max(count, 1), 1, 1];
  const rows = Math.ceil(count / limit);
  return [Math.ceil(count / rows), rows, 1];
}

/** The workgroup's place in a grid made by `gridOf`. */
export const flatGroup = "(group.y * groups.x + group.x)";

/** What a float looks like in WGSL, whatever it is. */
export function floatLiteral(value: number): string {
  if (Number.isNaN(value)) return "notANumber()";
  const rounded = Math.fround(value);
  if (!Number.isFinite(rounded)) return rounded > 0 ? "infinity()" : "(-infinity())";
  if (Object.is(rounded, -0)) return "(-0.0f)";
  const text = String(rounded);
  return rounded < 0 ? `(${text}f)` : `${text}f`;
}
