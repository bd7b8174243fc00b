// Operations that read or write rows whose numbers are data: their checks are noted and found when results are read.

import { count } from "../codegen/index-space.ts";
import { flatGroup, gridOf, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";

const threads = 256;

/** A kernel with a thread for each of `elements`; `i` is its number. */
function each(
  context: KernelContext,
  elements: number,
  slots: { readonly [name: string]: Slot },
  body: string,
  label = "",
): void {
  if (elements === 0) return;
  context.dispatch({
    label,
    slots,
    workgroupSize: [threads],
    body: `let i = ${flatGroup} * ${threads}u + lane;\nif (i >= ${elements}u) { return; }\n${body}`,
    workgroups: gridOf(Math.ceil(elements / threads), context.device.limits.maxComputeWorkgroupsPerDimension),
  });
}

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
  each(
    context,
    // Ids are checked also where rows are empty.
    places * Math.max(row, 1),
    { table: context.input("table"), ids: context.input("ids"), status, out },
    `let id = ids[i / ${Math.max(row, 1)}u];
if (id < 0 || id >= ${rows}) {
${fail("id")}
${row === 0 ? "" : `out[i] = ${out.value.type}(0);`}
return;
}
${row === 0 ? "" : `out[i] = table[u32(id) * ${row}u + i % ${row}u];`}`,
  );
});

/**
 * Rows are added in the order of their ids, so that the result is the same every time: ids are sorted by counting, and
 * each row of the result walks through those that are its own.
 */
export const scatterAdd = kernel((context) => {
  const [rows = 0, ...rest] = context.sizes(context.node.outputs.value);
  const row = count(rest);
  const places = count(context.sizes(context.node.inputs.ids));
  const ids = context.input("ids");
  const { slot: status, fail } = idCheck(context, rows);
  const out = context.output();
  // For each place: the one before it with the same id, or `places`. For each row: its last place.
  const order = context.scratch("u32", Math.max(places, 1));
  const heads = context.scratch("u32", Math.max(rows, 1));
  each(
    context,
    Math.max(rows, places),
    { ids, heads: { value: heads, access: "read_write" }, order: { value: order, access: "read_write" }, status },
    `if (i < ${rows}u) { heads[i] = ${places}u; }
if (i < ${places}u) {
order[i] = ${places}u;
let id = ids[i];
if (id < 0 || id >= ${rows}) { ${fail("id")} }
}`,
    ".start",
  );
  if (places > 0 && rows > 0 && row > 0) {
    // The next place with the same id, found by looking ahead: `heads` gets the first of each row.
    each(
      context,
      places,
      { ids, heads: { value: heads, access: "read_write" }, order: { value: order, access: "read_write" } },
      `let id = ids[i];
if (id < 0 || id >= ${rows}) { return; }
var first = true;
for (var j = i; j > 0u; j--) {
if (ids[j - 1u] == id) { first = false; order[j - 1u] = i; break; }
}
if (first) { heads[id] = i; }`,
      ".order",
    );
  }
  each(
    context,
    rows * row,
    {
      updates: context.input("updates"),
      heads: { value: heads, access: "read" },
      order: { value: order, access: "read" },
      out,
    },
    `var total = 0.0f;
var place = heads[i / ${Math.max(row, 1)}u];
for (var step = 0u; place < ${places}u && step < ${places}u; step++) {
total += f32(updates[place * ${row}u + i % ${Math.max(row, 1)}u]);
place = order[place];
}
out[i] = ${out.value.type}(total);`,
  );
});

/** Copies all rows but those written, unless the cache is overwritten where it lies. */
export const cacheWrite = kernel(
  (context) => {
    const [batch = 0, capacity = 0, ...rest] = context.sizes(context.node.inputs.cache);
    const row = count(rest);
    const rows = context.sizes(context.node.inputs.update)[1] ?? 0;
    const { slot: status, fail } = context.check({
      message: (start) => `cacheWrite: expected rows within 0 to ${capacity - 1}, got ${start} to ${start + rows - 1}`,
    });
    const update = context.input("update");
    const start = context.input("start");
    const out = context.output();
    if (context.inPlace("value")) {
      each(
        context,
        batch * rows * row,
        { update, start, status, out },
        `let b = i / ${rows * row}u;
let begin = start[b];
if (begin < 0 || begin > ${capacity - rows}) { ${fail("begin")} return; }
out[(b * ${capacity}u + u32(begin)) * ${row}u + i % ${rows * row}u] = update[i];`,
      );
      return;
    }
    each(
      context,
      batch * Math.max(capacity * row, 1),
      { cache: context.input("cache"), update, start, status, out },
      `let b = i / ${Math.max(capacity * row, 1)}u;
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
    );
  },
  { overwrites: { value: "cache" } },
);

/** value[b] = x[b, row[b]] */
export const takeRow = kernel((context) => {
  const [batch = 0, rows = 0, ...rest] = context.sizes(context.node.inputs.x);
  const size = count(rest);
  const { slot: status, fail } = idCheck(context, rows);
  const out = context.output();
  each(
    context,
    batch * Math.max(size, 1),
    { x: context.input("x"), row: context.input("row"), status, out },
    `let b = i / ${Math.max(size, 1)}u;
let here = row[b];
if (here < 0 || here >= ${rows}) {
${fail("here")}
${size === 0 ? "" : `out[i] = ${out.value.type}(0);`}
return;
}
${size === 0 ? "" : `out[i] = x[(b * ${rows}u + u32(here)) * ${size}u + i % ${size}u];`}`,
  );
});
