// Running sums over one axis: a thread for each row that is independent of the others.

import { decayBlock, sizesOf } from "@sisa/core";
import { count } from "../codegen/index-space.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import { dispatchEach } from "./each.ts";

/** Rows of x [outer, length, inner], each walked by one thread: `outer` and `inner` are its place. */
interface Walk {
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
  readonly reverse: boolean;
  readonly slots: { readonly [name: string]: Slot };
  readonly before: string;
  /** With `t` and `at`, the place of the element. */
  readonly step: string;
}

function walk(context: KernelContext, { outer, length, inner, reverse, slots, before, step }: Walk): void {
  if (length === 0) return;
  dispatchEach(context, {
    label: "",
    slots,
    elements: outer * inner,
    threads: 64,
    body: `let outer = i / ${inner}u;
let inner = i % ${inner}u;
${before}
for (var step = 0u; step < ${length}u; step++) {
let t = ${reverse ? `${length - 1}u - step` : "step"};
let at = (outer * ${length}u + t) * ${inner}u + inner;
${step}
}`,
  });
}

/** Sizes of [B, T, ...] as outer, length and inner. */
function timeSizes(context: KernelContext, input: string) {
  const [outer = 1, length = 1, ...rest] = context.sizes(context.node.inputs[input]);
  return { outer, length, inner: count(rest) };
}

const read = (context: KernelContext, ...names: readonly string[]) =>
  Object.fromEntries(names.filter((name) => context.has(name)).map((name) => [name, context.input(name)]));

export const cumulativeSum = kernel((context) => {
  const { axis, exclusive, reverse } = context.attributes as { axis: number; exclusive: boolean; reverse: boolean };
  const shape = context.sizes(context.node.inputs.x);
  const out = context.output();
  const value = (total: string) => `${out.value.type}(${total})`;
  scanInParts(context, {
    outer: count(shape.slice(0, axis)),
    length: shape[axis] ?? 1,
    inner: count(shape.slice(axis + 1)),
    reverse,
    type: "f32",
    slots: { ...read(context, "x"), out },
    term: "f32(x[at])",
    before: "0.0f",
    store: (old, next) => `out[at] = ${value(exclusive ? old : next)};`,
  });
});

/** Blocks are independent, so each has a thread of its own; only the one that continues an earlier sum looks back. */
export const blockCumulativeSum = kernel((context) => {
  const { size, reverse } = context.attributes as { size: number; reverse: boolean };
  const { outer, length, inner } = timeSizes(context, "x");
  // With a start the first block may be cut short, so that there can be one more.
  const blocks = Math.ceil(length / size) + (context.has("start") ? 1 : 0);
  if (length === 0) return;
  const out = context.output();
  const origin = context.has("start") ? `u32(max(start[outer], 0)) % ${size}u` : "0u";
  const before = context.has("before") ? `if (block == 0u) { total = f32(before[outer * ${inner}u + inner]); }` : "";
  const last = `min(${length}u, (block + 1u) * ${size}u - origin)`;
  dispatchEach(context, {
    label: "",
    slots: { ...read(context, "x", "before", "start"), out },
    elements: outer * blocks * inner,
    threads: 64,
    body: `let inner = i % ${inner}u;
let block = (i / ${inner}u) % ${blocks}u;
let outer = i / ${inner * blocks}u;
let origin = ${origin};
var total = 0.0f;
${context.has("start") ? before.replace("block == 0u", "block == 0u && origin > 0u") : before}
let first = select(block * ${size}u - origin, 0u, block == 0u);
let end = ${last};
for (var step = first; step < end; step++) {
let t = ${reverse ? "end - 1u - (step - first)" : "step"};
let at = (outer * ${length}u + t) * ${inner}u + inner;
total += f32(x[at]);
out[at] = ${out.value.type}(total);
}`,
  });
});

/** Parts of an axis that threads of a workgroup walk at once, and the columns beside each other that they walk. */
const parts = 16;
const columns = 16;

interface PartScan {
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
  readonly reverse: boolean;
  readonly type: "f32" | "u32";
  readonly slots: { readonly [name: string]: Slot };
  /** What is added up, with the place `at`. */
  readonly term: string;
  /** The sum in front of all terms. */
  readonly before: string;
  readonly store: (old: string, next: string) => string;
}

/** Running sums of x [outer, length, inner]: each thread adds up a part, then walks it with what the parts before have. */
function scanInParts(context: KernelContext, scan: PartScan): void {
  const { outer, length, inner, reverse, type, slots, term, before, store } = scan;
  if (outer * length * inner === 0) return;
  const across = Math.ceil(inner / columns);
  const part = Math.ceil(length / parts);
  const at = `let at = (outer * ${length}u + ${reverse ? `${length - 1}u - t` : "t"}) * ${inner}u + inner;`;
  context.dispatch({
    label: "",
    slots,
    workgroupSize: [parts * columns],
    declarations: `var<workgroup> sums: array<${type}, ${parts * columns}>;`,
    body: `let block = ${flatGroup};
let outer = block / ${across}u;
let inner = (block % ${across}u) * ${columns}u + lane % ${columns}u;
let part = lane / ${columns}u;
let first = part * ${part}u;
let end = min(first + ${part}u, ${length}u);
let inside = inner < ${inner}u && outer < ${outer}u;
var sum = ${type}();
if (inside) {
for (var t = first; t < end; t++) {
${at}
sum += ${term};
}
}
sums[lane] = sum;
workgroupBarrier();
if (!inside) { return; }
var total = ${before};
for (var earlier = lane % ${columns}u; earlier < lane; earlier += ${columns}u) { total += sums[earlier]; }
for (var t = first; t < end; t++) {
${at}
let next = total + ${term};
${store("total", "next")}
total = next;
}`,
    workgroups: context.grid(outer * across),
  });
}

/** 2^-32 turns in radians. */
const turn = "1.4629180792671596e-9";

/**
 * Angles as whole numbers of 2^-32 turns: their sums wrap around at a full turn by themselves, lose nothing however long
 * they are, and are the same in any order.
 */
export const cumulativePhase = kernel((context) => {
  const { outer, length, inner } = timeSizes(context, "x");
  const out = context.output();
  scanInParts(context, {
    ...{ outer, length, inner, reverse: false, type: "u32" },
    slots: { ...read(context, "x", "before"), out },
    term: "turns_of(f32(x[at]))",
    before: context.has("before") ? `turns_of(f32(before[outer * ${inner}u + inner]))` : "0u",
    store: (_, next) => `out[at] = ${out.value.type}(f32(${next}) * ${turn});`,
  });
});

/** Tokens up to which all that SISA prepares is done by one kernel, a thread for each rotated pair. */
const fewTokens = 4;

export const ssmPrepare = kernel(
  (context) => {
    const [B = 0, T = 0, H = 0, S = 0] = context.sizes(context.node.inputs.c);
    const pairs = S / 2;
    const [cRotated, bRotated, g, phi] = (["cRotated", "bRotated", "g", "phi"] as const).map((name) =>
      context.output(name),
    ) as [Slot, Slot, Slot, Slot];
    const continued = context.has("start");
    const rotate = (from: string, to: string, { value }: Slot) => `{
let x = f32(${from}[at * 2u]);
let y = f32(${from}[at * 2u + 1u]);
${to}[at * 2u] = ${value.type}(x * cosine - y * sine);
${to}[at * 2u + 1u] = ${value.type}(x * sine + y * cosine);
}`;
    dispatchEach(context, {
      label: ".few",
      slots: {
        ...read(context, "c", "b", "logDecay", "phase", "gBefore", "phaseBefore", "start"),
        ...{ cRotated, bRotated, g, phi },
      },
      elements: B * H * pairs,
      threads: 64,
      body: `let pair = i % ${pairs}u;
let head = (i / ${pairs}u) % ${H}u;
let batch = i / ${H * pairs}u;
let origin = ${continued ? "u32(max(start[batch], 0))" : "0u"};
var angle = ${continued ? "turns_of(f32(phaseBefore[i]))" : "0u"};
var total = ${continued ? `f32(gBefore[i / ${pairs}u])` : "0.0f"};
for (var t = 0u; t < ${T}u; t++) {
let row = (batch * ${T}u + t) * ${H}u + head;
let at = row * ${pairs}u + pair;
angle += turns_of(f32(phase[at]));
let radians = f32(angle) * ${turn};
phi[at] = ${phi.value.type}(radians);
let cosine = exact_cos(radians);
let sine = exact_sin(radians);
${rotate("c", "cRotated", cRotated)}
${rotate("b", "bRotated", bRotated)}
if ((origin + t) % ${decayBlock}u == 0u) { total = 0.0f; }
total += f32(logDecay[row]);
if (pair == 0u) { g[row] = ${g.value.type}(total); }
}`,
    });
  },
  {
    supports({ inputs: { c, start } }, { limits }) {
      const [, T = 0, , S = 0] = sizesOf(c?.shape ?? []);
      return T > 0 && T <= fewTokens && S > 0 && limits.maxStorageBuffersPerShaderStage >= (start ? 11 : 8);
    },
  },
);

/** h_t = a_t h_{t-1} + b_t */
export const linearScan = kernel((context) => {
  const out = context.output();
  const { inner, ...sizes } = timeSizes(context, "a");
  walk(context, {
    ...sizes,
    inner,
    reverse: context.attributes.reverse as boolean,
    slots: { ...read(context, "a", "b", "h0"), out },
    before: `var h = ${context.has("h0") ? `f32(h0[outer * ${inner}u + inner])` : "0.0f"};`,
    step: `h = fma(f32(a[at]), h, f32(b[at]));
out[at] = ${out.value.type}(h);`,
  });
});
