// Kernels of threads that have nothing to do with each other.

import { flatGroup, type ShaderParts } from "../codegen/shader.ts";
import type { KernelContext } from "../lowering.ts";

interface EachParts extends Pick<ShaderParts, "label" | "slots" | "declarations"> {
  readonly elements: number;
  /** Of a workgroup. Default 256. */
  readonly threads?: number;
  /** Sees `i`, the number of its element. */
  readonly body: string;
}

/** Dispatches a kernel with a thread for each element; none where there are no elements. */
export function dispatchEach(context: KernelContext, { elements, threads = 256, body, ...parts }: EachParts): void {
  if (elements === 0) return;
  context.dispatch({
    ...parts,
    workgroupSize: [threads],
    body: `let i = ${flatGroup} * ${threads}u + lane;
if (i >= ${elements}u) { return; }
${body}`,
    workgroups: context.grid(Math.ceil(elements / threads)),
  });
}
