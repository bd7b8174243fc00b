// A token of decoding by one launch in place of one for each of its steps: kernels/token-hopper.cu.

import { packArguments, packStruct, type StructArgument } from "./device/arguments.ts";
import { kernelEntry } from "./device/kernels.ts";
import type { PlanTarget, Step, Storage, View } from "./plan.ts";

/** A product of few rows, as a part of such a launch: x W^T of rows that lie one after another. */
export interface ProductPhase {
  readonly kind: "product";
  readonly x: View;
  readonly rows: number;
  readonly k: number;
  readonly norm: { readonly weight: View; readonly epsilon: number } | undefined;
  /** [n, k]; of a gate both give one result. */
  readonly weights: readonly [View, (View | undefined)?];
  readonly n: readonly number[];
  readonly results: readonly [View, (View | undefined)?];
  /** Whether a result is float32. */
  readonly isWide: readonly boolean[];
  readonly addend: View | undefined;
  /** Which of `length` rows each row of x is taken from; the first for less than 0 where `isFromZero`. */
  readonly taken:
    | {
        readonly row: View;
        readonly length: number;
        readonly isFromZero: boolean;
        readonly fault: readonly [View, number];
      }
    | undefined;
  readonly isGate: boolean;
}

/** Attention of one token of each sequence to its cache, as a part of such a launch. */
export interface AttentionPhase {
  readonly kind: "attention";
  /** q, k, v, c and b, and phase and strength, which are float32. */
  readonly inputs: readonly (View | null)[];
  /** cosine and sine */
  readonly rotation: readonly (View | null)[];
  /** bias and lambda */
  readonly tables: readonly (View | null)[];
  /** keys, values, importances, decays, phases */
  readonly caches: readonly (View | null)[];
  readonly value: View;
  readonly start: View;
  /** The structure Pages. */
  readonly pages: StructArgument;
  readonly fault: readonly [View, number];
  readonly batches: number;
  readonly heads: number;
  readonly width: number;
  readonly stateWidth: number;
  readonly positions: number;
  readonly scale: number;
}

/** Rows of a table by their ids, as the x with which such a launch begins. */
export interface GatherPhase {
  readonly kind: "gather";
  readonly table: View;
  readonly ids: View;
  readonly value: View;
  readonly fault: readonly [View, number];
  readonly rows: number;
  /** Elements of a row. */
  readonly k: number;
  /** Rows of the table. */
  readonly length: number;
}

export type Phase = ProductPhase | AttentionPhase | GatherPhase;

/** What such a launch needs of the device and the plan. */
export interface LaunchTarget extends Pick<PlanTarget, "capability" | "clusters"> {
  /** int32 that are zero before the first run. */
  readonly zeros: (count: number) => Storage;
}

/** As in kernels/token-hopper.cu. */
const [clusterSize, warps, copiers, mostLayers, buffers, padding, step] = [8, 12, 4, 32, 4, 16, 16];
/** Rows of weights that the warps of a block take at once. */
const mostRowsOfBlock = step * warps;
/** What a block of Hopper may have, less what the kernel has beside its ring. */
const sharedBytes = (227 - 27) * 1024;

type Kernel = Extract<Step, { kind: "kernel" }>;
type PhaseStep = Kernel & { readonly phase: Phase };

interface Layer {
  readonly projections: ProductPhase;
  readonly attention: AttentionPhase;
  readonly output: ProductPhase;
  readonly gates: ProductPhase;
  readonly down: ProductPhase;
}

interface Token {
  readonly steps: readonly Step[];
  readonly embedding: GatherPhase | undefined;
  readonly layers: readonly Layer[];
  readonly head: ProductPhase | undefined;
}

const isPhase = (step: Step): step is PhaseStep => step.kind === "kernel" && step.phase !== undefined;

/** All that a step reads or writes. */
export function viewsOf(step: Step): readonly View[] {
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

/** The steps with one launch in place of those that are layers of a token, and what stands between them before it. */
export function joinPhases(steps: readonly Step[], target: LaunchTarget): readonly Step[] {
  if (target.capability !== 90) return steps;
  const users = new Map<Storage, Set<Step>>();
  for (const step of steps) {
    for (const { storage } of viewsOf(step)) users.set(storage, (users.get(storage) ?? new Set()).add(step));
  }
  const joined: Step[] = [];
  let run: PhaseStep[] = [];
  const end = () => {
    joined.push(...joinRun(run, users, target));
    run = [];
  };
  for (const step of steps) {
    if (isPhase(step)) run.push(step);
    else {
      if (viewsOf(step).some(({ storage }) => run.some((phase) => users.get(storage)?.has(phase)))) end();
      joined.push(step);
    }
  }
  end();
  return joined;
}

function joinRun(
  run: readonly PhaseStep[],
  users: ReadonlyMap<Storage, ReadonlySet<Step>>,
  target: LaunchTarget,
): readonly Step[] {
  const joined: Step[] = [];
  for (let at = 0; at < run.length; ) {
    const token = tokenAt(run.slice(at), users);
    const launch = token && launchOf(token, target);
    joined.push(...(launch ? [launch] : run.slice(at, at + 1)));
    at += launch ? token.steps.length : 1;
  }
  return joined;
}

/**
 * The layers with which steps begin, what x is gathered from before them, and the product behind them. What is found between
 * must be read by nobody else.
 */
function tokenAt(steps: readonly PhaseStep[], users: ReadonlyMap<Storage, ReadonlySet<Step>>): Token | undefined {
  const [start] = steps;
  const embedding = start?.phase.kind === "gather" ? start.phase : undefined;
  const phases = steps.slice(embedding ? 1 : 0).map(({ phase }) => phase);
  const layers: Layer[] = [];
  while (layers.length < mostLayers) {
    const layer = layerAt(phases.slice(5 * layers.length), layers.at(-1));
    if (!layer) break;
    layers.push(layer);
  }
  const [first, last] = [layers[0], layers.at(-1)];
  const next = phases[5 * layers.length];
  const head = last && next && isHead(next, last) ? next : undefined;
  const own: readonly Step[] = steps.slice(0, (embedding ? 1 : 0) + 5 * layers.length + (head ? 1 : 0));
  const results = layers.flatMap(({ projections, attention, output, gates, down }) => [
    ...[...projections.results, attention.value, ...output.results, ...gates.results],
    ...(head || down !== last?.down ? down.results : []),
  ]);
  const between = embedding ? [embedding.value, ...results] : results;
  const isBetween = (view: View | undefined) =>
    view === undefined ||
    (view.storage.origin === "temporary" && [...(users.get(view.storage) ?? [])].every((step) => own.includes(step)));
  const begins = first && (!embedding || isEmbedding(embedding, first.projections));
  return begins && between.every(isBetween) ? { steps: own, embedding, layers, head } : undefined;
}

function isEmbedding({ value, rows, k }: GatherPhase, { x, ...sizes }: ProductPhase): boolean {
  return isSame(value, x) && rows === sizes.rows && k === sizes.k;
}

function isHead(phase: Phase, { projections, down }: Layer): phase is ProductPhase {
  if (phase.kind !== "product") return false;
  const { x, rows, weights, isGate, taken } = phase;
  const isPlain = isNormed(phase) && !isGate && !weights[1] && (taken?.length ?? 1) === 1;
  return isPlain && rows === projections.rows && isSame(x, down.results[0]);
}

/** Five phases that are a layer of x. */
function layerAt(phases: readonly Phase[], before: Layer | undefined): Layer | undefined {
  const [projections, attention, output, gates, down] = phases;
  if (projections?.kind !== "product" || attention?.kind !== "attention" || output?.kind !== "product")
    return undefined;
  if (gates?.kind !== "product" || down?.kind !== "product") return undefined;
  const { rows, k: d } = projections;
  const [hidden = 0] = gates.n;
  const value = attention.heads * attention.width;
  const fits =
    d % 64 === 0 &&
    d <= clusterSize * mostRowsOfBlock &&
    hidden % step === 0 &&
    rows === attention.batches &&
    (!before || isSame(projections.x, before.down.results[0])) &&
    isNormed(projections) &&
    !projections.taken &&
    !projections.isGate &&
    !projections.isWide[0] &&
    placesOf(attention, projections) !== undefined &&
    isSum(output, [rows, value, d], attention.value, projections.x) &&
    isNormed(gates) &&
    gates.isGate &&
    gates.rows === rows &&
    gates.k === d &&
    isSame(gates.x, output.results[0]) &&
    isSum(down, [rows, hidden, d], gates.results[0], output.results[0]);
  const layer = { projections, attention, output, gates, down };
  return fits && (!before || areAlike(before, layer)) ? layer : undefined;
}

const isNormed = ({ norm, addend }: ProductPhase) =>
  norm !== undefined && norm.weight.offset % 16 === 0 && addend === undefined;

/** Whether it is a product and a sum, in the dtype of x. */
function isSum(phase: ProductPhase, sizes: readonly number[], x: View, addend: View): boolean {
  const { norm, taken, weights, isWide, rows, k, n } = phase;
  const isPlain = !norm && !taken && !weights[1] && !isWide[0];
  const isOf = isSame(phase.x, x) && phase.addend !== undefined && isSame(phase.addend, addend);
  return isPlain && isOf && [rows, k, n[0]].every((size, index) => size === sizes[index]);
}

/** Whether one launch can have both, so far as it holds things once for all layers. */
function areAlike(a: Layer, b: Layer): boolean {
  const sizesOf = ({ projections, attention, gates }: Layer) => [
    ...[projections.rows, projections.k, gates.n[0]],
    ...[attention.heads, attention.width, attention.stateWidth, attention.scale, attention.positions],
  ];
  const viewsOf = ({ attention }: Layer) => [
    ...[attention.start, ...attention.rotation].filter((view) => view !== null),
    ...attention.pages.addresses.slice(0, -1).map(({ argument }) => argument as View),
  ];
  const [sizes, views, others] = [sizesOf(b), viewsOf(a), viewsOf(b)];
  const areSameViews = views.every((view, index) => others[index] !== undefined && isSame(view, others[index]));
  return sizesOf(a).every((size, index) => size === sizes[index]) && areSameViews && views.length === others.length;
}

/** From which of the columns that projections give each input of attention is taken; undefined where one lies elsewhere. */
function placesOf({ inputs, heads, width, stateWidth }: AttentionPhase, projections: ProductPhase) {
  const sizes = [width, width, width, stateWidth, stateWidth, stateWidth / 2, 1].map((size) => size * heads);
  const places = inputs.map((input, index) => {
    if (!input) return 0;
    const isWide = index >= 5;
    const result = projections.results[isWide ? 1 : 0];
    const place = (input.offset - (result?.offset ?? 0)) / (isWide ? 4 : 2);
    const isWithin = place >= 0 && place + (sizes[index] ?? 0) <= (projections.n[isWide ? 1 : 0] ?? 0);
    return input.storage === result?.storage && isWithin ? place : undefined;
  });
  return places.every((place) => place !== undefined) ? places : undefined;
}

const isSame = (a: View, b: View) => a.storage === b.storage && a.offset === b.offset;

/** The launch; undefined where the device or the kernel cannot have it. */
function launchOf({ embedding, layers, head }: Token, target: LaunchTarget): Step | undefined {
  const [layer] = layers;
  if (!layer) return undefined;
  const { projections, attention, gates } = layer;
  const { rows, k: d } = projections;
  const { heads, width, stateWidth } = attention;
  const [hidden = 0] = gates.n;
  const kernel = `decodeTokenHopper_${width}_${stateWidth}`;
  const block = 32 * (warps + copiers);
  // A cluster has heads, hidden elements of the feed-forward by groups, or both.
  const groups = hidden / step;
  const clusters = Math.min(target.clusters(kernel, block, sharedBytes), Math.max(heads, groups));
  if (clusters === 0) return undefined;
  const mostGroups = Math.ceil(groups / Math.min(groups, clusters));
  const gateRows = (2 * step * mostGroups) / clusterSize;
  if (gateRows > mostRowsOfBlock) return undefined;
  const hiddenPitch = 2 * step * mostGroups + padding;
  const layerStructures = layers.map(packLayer);
  const [layerBytes = 0] = layerStructures.map(({ bytes }) => bytes.length * layers.length);
  const places = [layerBytes];
  for (const bytes of [2 * d + padding, hiddenPitch, d / 2, d / 4]) places.push((places.at(-1) ?? 0) + rows * bytes);
  const ringBytes = sharedBytes - (places.at(-1) ?? 0);
  const parts = Math.max(heads, clusters);
  const [logits] = head?.results ?? [];
  const structure = packStruct([
    { storage: target.zeros(1), offset: 0 },
    { storage: target.zeros(2 * buffers * parts * rows * d), offset: 0 },
    embedding?.table ?? projections.x,
    embedding?.ids ?? null,
    ...(embedding?.fault ?? [null, 0]),
    embedding?.length ?? 0,
    head ? null : (layers.at(-1)?.down.results[0] ?? null),
    ...attention.rotation,
    attention.start,
    attention.pages,
    ...attention.fault,
    ...[rows, d, heads, hidden, attention.positions, layers.length, parts],
    { float: attention.scale },
    head?.norm?.weight ?? null,
    head?.weights[0] ?? null,
    logits ?? null,
    head?.taken?.row ?? null,
    ...(head?.taken?.fault ?? [null, 0]),
    head?.n[0] ?? 0,
    ...[head?.isWide[0], head?.taken?.isFromZero].map((is) => (is ? 1 : 0)),
    { float: head?.norm?.epsilon ?? 0 },
    // Parts of a sequence's keys, so that each block of a cluster has one at most.
    2 ** Math.floor(Math.log2(clusterSize / rows)),
    ...places,
    ...[hiddenPitch, ringBytes],
    ...layerStructures,
  ]);
  const packed = packArguments(kernel, kernelEntry(kernel).parameters, [filledUp(structure, kernel)]);
  const grid = [clusterSize * clusters, 1, 1] as const;
  return { op: "cuda/decodeToken", kind: "kernel", kernel, grid, block, sharedBytes, mode: "cooperative", packed };
}

/** The structure Layer. */
function packLayer({ projections, attention, output, gates, down }: Layer): StructArgument {
  return packStruct([
    ...[0, 1].map((index) => projections.weights[index] ?? null),
    ...[output.weights[0], gates.weights[0], gates.weights[1] ?? null, down.weights[0]],
    ...[projections.norm?.weight ?? null, gates.norm?.weight ?? null],
    ...attention.tables,
    ...attention.caches,
    ...(placesOf(attention, projections) ?? []),
    ...[projections, gates].map(({ norm }) => ({ float: norm?.epsilon ?? 0 })),
  ]);
}

/** A structure that ends in an array, as long as the kernel declares it. */
function filledUp({ bytes, addresses }: StructArgument, kernel: string): StructArgument {
  const [parameter = ""] = kernelEntry(kernel).parameters;
  const whole = new Uint8Array(typeof parameter === "string" ? bytes.length : parameter.size);
  whole.set(bytes);
  return { bytes: whole, addresses };
}
