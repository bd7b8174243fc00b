// The compiled kernels: which there are, what parameters they take, and the machine code for a device.

import attention from "../images/attention.json" with { type: "json" };
import attentionHopper from "../images/attention-hopper.json" with { type: "json" };
import decode from "../images/decode.json" with { type: "json" };
import decodeStep from "../images/decode-step.json" with { type: "json" };
import elementwise from "../images/elementwise.json" with { type: "json" };
import fewRows from "../images/few-rows.json" with { type: "json" };
import fused from "../images/fused.json" with { type: "json" };
import movement from "../images/movement.json" with { type: "json" };
import optimizer from "../images/optimizer.json" with { type: "json" };
import prepare from "../images/prepare.json" with { type: "json" };
import reduction from "../images/reduction.json" with { type: "json" };
import sample from "../images/sample.json" with { type: "json" };
import spansHopper from "../images/spans-hopper.json" with { type: "json" };
import tokenHopper from "../images/token-hopper.json" with { type: "json" };

/** A type of PTX, or a structure passed by value. */
export type Parameter = string | { readonly type: string; readonly size: number; readonly align: number };

export interface KernelImage {
  /** Hash of the sources that it was compiled from. */
  readonly source: string;
  readonly kernels: { readonly [name: string]: readonly Parameter[] };
  /** Compressed code for each target; kernels of one generation have code for that alone. */
  readonly images: { readonly [K in Target]?: string };
}

export type Target = "sm_80" | "sm_90a" | "ptx";

export const kernelImages: { readonly [file: string]: KernelImage } = {
  attention,
  "attention-hopper": attentionHopper,
  decode,
  "decode-step": decodeStep,
  elementwise,
  "few-rows": fewRows,
  fused,
  movement,
  optimizer,
  prepare,
  reduction,
  sample,
  "spans-hopper": spansHopper,
  "token-hopper": tokenHopper,
};

/** The least of what supported GPUs have: compute capability 8.0, and shared memory of a block as in 8.6, 8.9 and 12.0. */
export const everyGpu = { capability: 80, sharedBytes: 99 * 1024 } as const;

/** The code that a device of a compute capability runs; undefined where there is none. */
export function targetFor(capability: number): Target | undefined {
  if (capability < everyGpu.capability) return undefined;
  if (capability < 90) return "sm_80";
  return capability === 90 ? "sm_90a" : "ptx";
}

export interface KernelEntry {
  readonly file: string;
  readonly parameters: readonly Parameter[];
}

const entries = new Map<string, KernelEntry>(
  Object.entries(kernelImages).flatMap(([file, { kernels }]) =>
    Object.entries(kernels).map(([name, parameters]) => [name, { file, parameters }] as const),
  ),
);

export function kernelEntry(name: string): KernelEntry {
  const entry = entries.get(name);
  if (entry === undefined) throw new Error(`no kernel is named "${name}"`);
  return entry;
}
