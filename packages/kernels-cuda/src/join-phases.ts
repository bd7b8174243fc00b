// Steps of decoding that one launch does one after another, with barriers between them; kernels/token-hopper.cu.

import { type Argument, packArguments, type StructArgument } from "./device/arguments.ts";
import { kernelEntry } from "./device/kernels.ts";
import type { Step, Storage, View } from "./plan.ts";

/** A step as a phase of such a launch. */
export interface Phase {
  /** FewRows of kernels/few-rows.cuh, or DecodeStep of kernels/decode-step.cuh. */
  readonly structure: StructArgument;
  /** Shared memory for x of a product. */
  readonly xBytes?: number;
  /** Widths of heads and of their states, where it is attention; it is a product elsewhere. */
  readonly attention?: { readonly width: number; readonly stateWidth: number };
}

/** As in kernels/token-hopper.cu. */
const mostPhases = 120;
const [headBytes, phaseBytes] = [32, 272];
/** What a block of Hopper may have, less what the kernel has beside its ring and its phases. */
const sharedBytes = (227 - 24) * 1024;
/** Of weights: what is copied at once, and what is on its way at once, at most. */
const [pieceBytes, flightBytes] = [64 * 1024, 96 * 1024];

type Kernel = Extract<Step, { kind: "kernel" }>;
type PhaseStep = Kernel & { readonly phase: Phase };

const isPhase = (step: Step): step is PhaseStep => step.kind === "kernel" && step.phase !== undefined;

/** All that a step reads or writes. */
function viewsOf(step: Step): readonly View[] {
  switch (step.kind) {
    case "kernel":
      return step.packed.addresses.map(({ argument }) => argument as View);
    case "product":
      return [step.a, step.b, step.c, ...(step.addend ? [step.addend] : [])];
    case "zero":
      return [step.target];
    case "copy":
      return [step.source, step.target];
    default:
      return step satisfies never;
  }
}

/**
 * Steps in the order in which they run, those that one launch does together: phases that follow each other. What stands
 * between them and shares no memory goes before.
 */
export function groupPhases(steps: readonly Step[], capability: number): readonly (readonly Step[])[] {
  if (capability !== 90) return steps.map((step) => [step]);
  const groups: (readonly Step[])[] = [];
  let run: PhaseStep[] = [];
  let used = new Set<Storage>();
  const end = () => {
    if (run.length > 1 && run.flatMap(kindOf).length > 0) groups.push(run);
    else groups.push(...run.map((step) => [step]));
    run = [];
    used = new Set();
  };
  for (const step of steps) {
    const views = viewsOf(step);
    if (isPhase(step)) {
      if (run.length === mostPhases || !areAlike([...run, step])) end();
      run.push(step);
      for (const { storage } of views) used.add(storage);
    } else {
      if (views.some(({ storage }) => used.has(storage))) end();
      groups.push([step]);
    }
  }
  end();
  return groups;
}

/** What each step of a group reads or writes; what attention finds is joined by the phase after it. */
export function viewsInGroup(group: readonly Step[]): readonly (readonly View[])[] {
  const views = group.map(viewsOf);
  return group.map((step, index) => {
    const before = group[index - 1];
    const joins = before && isPhase(before) && before.phase.attention;
    return [...viewsOf(step), ...(joins ? (views[index - 1] ?? []) : [])];
  });
}

const kindOf = ({ phase: { attention } }: PhaseStep) =>
  attention ? [`${attention.width}_${attention.stateWidth}`] : [];

/** Whether one kernel has the attention of all of them. */
const areAlike = (run: readonly PhaseStep[]) => new Set(run.flatMap(kindOf)).size <= 1;

/**
 * One launch in place of a group.
 * @param counter int32 that is zero before the first run, and that the kernel leaves so
 */
export function joinPhases(group: readonly Step[], multiprocessors: number, counter: () => View): Step {
  const [first] = group as [Step];
  if (group.length === 1) return first;
  const run = group.filter(isPhase);
  const [kind = ""] = run.flatMap(kindOf);
  const kernel = `decodeTokenHopper_${kind}`;
  // With one that copies weights.
  const warps = ["64_0", "64_16", "64_32"].includes(kind) ? 13 : 8;
  const argument = packPhases(run, counter());
  const packed = packArguments(kernel, kernelEntry(kernel).parameters, [argument]);
  const grid = [multiprocessors, 1, 1] as const;
  return { op: first.op, kind: "kernel", kernel, grid, block: 32 * warps, sharedBytes, mode: "cooperative", packed };
}

/** The structure Token. */
function packPhases(run: readonly PhaseStep[], counter: View): Argument {
  const bytes = new Uint8Array(headBytes + mostPhases * phaseBytes);
  const view = new DataView(bytes.buffer);
  const xBytes = Math.max(...run.map(({ phase }) => phase.xBytes ?? 0));
  const ringBytes = sharedBytes - run.length * phaseBytes - xBytes;
  [run.length, xBytes, ringBytes, pieceBytes, flightBytes].forEach((value, index) => {
    view.setInt32(8 + 4 * index, value, true);
  });
  const addresses = run.flatMap(({ phase: { structure, attention } }, index) => {
    const at = headBytes + index * phaseBytes;
    view.setInt32(at, attention ? 1 : 0, true);
    bytes.set(structure.bytes, at + 8);
    return structure.addresses.map((place) => ({ ...place, at: at + 8 + place.at }));
  });
  return { bytes, addresses: [{ at: 0, argument: counter }, ...addresses] };
}
