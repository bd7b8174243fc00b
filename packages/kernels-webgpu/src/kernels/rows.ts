// Operations that read or write rows whose numbers are data: their checks are noted and found when results are read.

import { count } from "../codegen/index-space.ts";
import type { Slot } from "../codegen/shader.ts";
import { originOf } from "../fuse.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import { dispatchEach } from "./each.ts";

function idCheck(context: KernelContext, rows: number) {
  return context.check({
    message: (id) => `${context.node.op.name}: expected ids from 0 to ${rows - 1}, got ${id}`,
  });
}

/** value[..., :] = table[ids[...], :]; a row that is not there is zero, and fails the check. */
export const gather = kernel((context) => {
  const [rows = 0, ...rest] = context.sizes(context.node.inputs.table);
  const row = count(rest);
  const places = count(context.sizes(context.node.inputs.ids));
  const { slot: status, fail } = idCheck(context, rows);
  const out = context.output();
  dispatchEach(context, {
    label: "",
    // Ids are checked also where rows are empty.
    elements: places * Math.max(row, 1),
    slots: { table: context.input("table"), ids: context.input("ids"), status, out },
    body: `let id = ids[i / ${Math.max(row, 1)}u];
if (id < 0 || id >= ${rows}) {
${fail("id")}
${row === 0 ? "" : `out[i] = ${out.value.type}(0);`}
return;
}
${row === 0 ? "" : `out[i] = table[u32(id) * ${row}u + i % ${row}u];`}`,
  });
});

/** Places that a workgroup looks at together while it orders them. */
const together = 256;

/**
 * Rows are added in the order of their places, so that the result is the same every time: places with one id are linked,
 * by one workgroup that goes through them once, and each row of the result walks along its own.
 */
export const scatterAdd = kernel((context) => {
  const [rows = 0, ...rest] = context.sizes(context.node.outputs.value);
  const row = count(rest);
  const places = count(context.sizes(context.node.inputs.ids));
  const ids = context.input("ids");
  const { slot: status, fail } = idCheck(context, rows);
  const out = context.output();
  // For each place the next one with the same id, or `places`. For each row its first and its last place so far.
  const order: Slot = { value: context.scratch("u32", Math.max(places, 1)), access: "read_write" };
  const heads: Slot = { value: context.scratch("u32", Math.max(rows, 1)), access: "read_write" };
  const tails: Slot = { value: context.scratch("u32", Math.max(rows, 1)), access: "read_write" };
  dispatchEach(context, {
    label: ".start",
    elements: Math.max(rows, places),
    slots: { ids, heads, order, status },
    body: `if (i < ${rows}u) { heads[i] = ${places}u; }
if (i < ${places}u) {
order[i] = ${places}u;
let id = ids[i];
if (id < 0 || id >= ${rows}) { ${fail("id")} }
}`,
  });
  if (places > 0 && rows > 0 && row > 0) {
    context.dispatch({
      label: ".order",
      slots: { ids, heads, order, tails },
      workgroupSize: [together],
      declarations: `var<workgroup> block: array<i32, ${together}>;`,
      body: `for (var first = 0u; first < ${places}u; first += ${together}u) {
let i = first + lane;
let own = ids[min(i, ${places - 1}u)];
let id = select(-1, own, i < ${places}u && own >= 0 && own < ${rows});
block[lane] = id;
workgroupBarrier();
var next = lane + 1u;
while (next < ${together}u && block[next] != id) { next++; }
var before = lane;
while (before > 0u && block[before - 1u] != id) { before--; }
let isLast = next == ${together}u;
if (id >= 0) {
if (!isLast) { order[i] = first + next; }
if (before == 0u) {
if (heads[id] == ${places}u) { heads[id] = i; } else { order[tails[id]] = i; }
}
}
storageBarrier();
workgroupBarrier();
if (id >= 0 && isLast) { tails[id] = i; }
storageBarrier();
workgroupBarrier();
}`,
      workgroups: [1, 1, 1],
    });
  }
  dispatchEach(context, {
    label: "",
    elements: rows * row,
    slots: {
      updates: context.input("updates"),
      heads: { ...heads, access: "read" },
      order: { ...order, access: "read" },
      out,
    },
    body: `var total = 0.0f;
var place = heads[i / ${Math.max(row, 1)}u];
for (var step = 0u; place < ${places}u && step < ${places}u; step++) {
total += f32(updates[place * ${row}u + i % ${Math.max(row, 1)}u]);
place = order[place];
}
out[i] = ${out.value.type}(total);`,
  });
});

/** Copies all rows but those written, unless the cache is overwritten where it lies. */
export const cacheWrite = kernel((context) => (context.inPlace("value") ? writeRows([context]) : writeCopy(context)), {
  overwrites: { value: "cache" },
  // The caches of one layer.
  joint: {
    key: ({ inputs: { start, pages } }) => start && [originOf(start), pages && originOf(pages)],
    build(contexts) {
      for (const context of contexts) if (!context.inPlace("value")) writeCopy(context);
      const own = contexts.filter((context) => context.inPlace("value"));
      const shared = own[0]?.has("pages") ? 3 : 2;
      const most = Math.floor(((own[0]?.device.limits.maxStorageBuffersPerShaderStage ?? 0) - shared) / 2);
      for (let from = 0; from < own.length; from += most) writeRows(own.slice(from, from + most));
    },
  },
});

/** A cache that is not in pages has one for each sequence. */
function cacheSizes(context: KernelContext) {
  const [pages = 0, pageSize = 0, ...rest] = context.sizes(context.node.inputs.cache);
  const [batch = 0, rows = 0] = context.sizes(context.node.inputs.update);
  const perSequence = context.has("pages") ? (context.sizes(context.node.inputs.pages)[1] ?? 0) : 1;
  return { batch, rows, row: count(rest), pages, pageSize, perSequence, capacity: perSequence * pageSize };
}

function startCheck(context: KernelContext) {
  const { capacity, rows } = cacheSizes(context);
  return context.check({
    message: (start) => `cacheWrite: expected rows within 0 to ${capacity - 1}, got ${start} to ${start + rows - 1}`,
  });
}

/** Writes the new rows of several caches whose rows begin at the same places. */
function writeRows(contexts: readonly KernelContext[]): void {
  const [first] = contexts;
  if (!first) return;
  const isPaged = first.has("pages");
  const slots: Record<string, Slot> = { start: first.input("start"), ...(isPaged && { pages: first.input("pages") }) };
  const elements = contexts.map((context) => {
    const { batch, rows, row } = cacheSizes(context);
    return batch * rows * row;
  });
  const writes = contexts.map((context, index) => {
    const { capacity, rows, row, pages, pageSize, perSequence } = cacheSizes(context);
    const { slot, fail } = startCheck(context);
    slots.status = slot;
    slots[`update${index}`] = context.input("update");
    slots[`out${index}`] = context.output();
    const inRun = `out${index}[(b * ${capacity}u + u32(begin)) * ${row}u + i % ${rows * row}u] = update${index}[i];`;
    const inPage = () => `let position = u32(begin) + i % ${rows * row}u / ${row}u;
let page = pages[b * ${perSequence}u + position / ${pageSize}u];
if (page < 0 || page >= ${pages}) { ${idCheck(context, pages).fail("page")} }
else { out${index}[(u32(page) * ${pageSize}u + position % ${pageSize}u) * ${row}u + i % ${row}u] = update${index}[i]; }`;
    return `if (i < ${elements[index]}u) {
let b = i / ${rows * row}u;
let begin = start[b];
if (begin < 0 || begin > ${capacity - rows}) { ${fail("begin")} }
else { ${isPaged ? inPage() : inRun} }
}`;
  });
  const written = writes.filter((_, index) => elements[index]);
  const label = contexts.length > 1 ? `.${contexts.length}` : "";
  dispatchEach(first, { label, elements: Math.max(...elements), slots, body: written.join("\n") });
}

function writeCopy(context: KernelContext): void {
  if (context.has("pages")) {
    const { pages, pageSize, row } = cacheSizes(context);
    const slots = { cache: context.input("cache"), out: context.output() };
    dispatchEach(context, { label: ".copy", elements: pages * pageSize * row, slots, body: "out[i] = cache[i];" });
    writeRows([context]);
    return;
  }
  const { batch, capacity, row, rows } = cacheSizes(context);
  const { slot: status, fail } = startCheck(context);
  const { start, update, cache } = {
    start: context.input("start"),
    update: context.input("update"),
    cache: context.input("cache"),
  };
  dispatchEach(context, {
    label: "",
    elements: batch * Math.max(capacity * row, 1),
    slots: { cache, update, start, status, out: context.output() },
    body: `let b = i / ${Math.max(capacity * row, 1)}u;
let begin = start[b];
if (begin < 0 || begin > ${capacity - rows}) { ${fail("begin")} return; }
${
  capacity * row === 0
    ? ""
    : `let within = i % ${capacity * row}u;
let first = u32(begin) * ${row}u;
if (within >= first && within < first + ${rows * row}u) { out[i] = update[b * ${rows * row}u + within - first]; }
else { out[i] = cache[i]; }`
}`,
  });
}

/** value[b] = x[b, row[b]], or that row of a sequence in pages. */
export const takeRow = kernel(
  (context) => {
    const [pages = 0, pageSize = 0, ...rest] = context.sizes(context.node.inputs.x);
    const [batch = 0] = context.sizes(context.node.inputs.row);
    const isPaged = context.has("pages");
    const perSequence = isPaged ? (context.sizes(context.node.inputs.pages)[1] ?? 0) : 1;
    const rows = perSequence * pageSize;
    const size = count(rest);
    const { slot: status, fail } = idCheck(context, rows);
    const out = context.output();
    const { finish } = context;
    const stored = (value: string) =>
      size === 0 ? "" : `out[i] = ${out.value.type}(${finish ? `finish(i, f32(${value}))` : value});`;
    const refused = (condition: string, failed: string) => `if (${condition}) {
${failed}
${stored(`${out.value.type}(0)`)}
return;
}`;
    const inPage = () => `let page = pages[b * ${perSequence}u + u32(here) / ${pageSize}u];
${refused(`page < 0 || page >= ${pages}`, idCheck(context, pages).fail("page"))}
let place = u32(page) * ${pageSize}u + u32(here) % ${pageSize}u;`;
    const slots = {
      x: context.input("x"),
      row: context.input("row"),
      ...(isPaged && { pages: context.input("pages") }),
    };
    dispatchEach(context, {
      label: "",
      elements: batch * Math.max(size, 1),
      slots: { ...slots, status, ...finish?.slots, out },
      declarations: finish?.declaration ?? "",
      body: `let b = i / ${Math.max(size, 1)}u;
let here = row[b];
${refused(`here < 0 || here >= ${rows}`, fail("here"))}
${isPaged ? inPage() : `let place = b * ${rows}u + u32(here);`}
${stored(`x[place * ${size}u + i % ${size}u]`)}`,
    });
  },
  { finishes: true },
);

/** Gradients of silu(gate) * up by both, in one pass. */
export const swigluBackward = kernel((context) => {
  const [gate, up] = [context.output("gate"), context.output("up")];
  dispatchEach(context, {
    label: "",
    elements: count(context.sizes(context.node.inputs.gate)),
    slots: {
      gate: context.input("gate"),
      up: context.input("up"),
      gradient: context.input("gradient"),
      gateSlope: gate,
      upSlope: up,
    },
    body: `let x = f32(gate[i]);
let slope = f32(gradient[i]);
let s = sigmoid(x);
gateSlope[i] = ${gate.value.type}(slope * f32(up[i]) * fma(x * s, 1.0f - s, s));
upSlope[i] = ${up.value.type}(slope * x * s);`,
  });
});
