// Gradients of softmax attention over a whole sequence, with and without the importance term of SISA: one kernel whose rows
// are queries, one whose rows are keys. Scores are computed again from the log-sum-exp of the forward pass.

import { decayBlock, type Node } from "@sisa/core";
import { sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import {
  type AttentionSizes,
  attentionSizes,
  fitsAttention,
  gatherRowNumbers,
  matters,
  placeOfTile,
  type RowNumbers,
  tileArrays,
  totalOf,
} from "./attention-parts.ts";
import {
  declare,
  declareSums,
  each,
  fours,
  gather,
  ofRows,
  products,
  rowAt,
  spread,
  storeSums,
  type TileShape,
  threadsOf,
  tileDeclarations,
  tileRows,
  tileShape,
} from "./attention-tiles.ts";
import { dispatchEach } from "./each.ts";

const bindings = 10;

/** Scores of one tile of queries are left to the composition, which takes no large kernels. */
const fillsTiles = (node: Node) => attentionSizes(node).T > tileRows;

export const attentionBackward = kernel(
  (context) => {
    const sizes = attentionSizes(context.node);
    const causal = context.attributes.causal as boolean;
    const numbers = gatherRowNumbers(context, sizes, true);
    const shape = tileShape(context.device) as TileShape;
    queryGradients(context, sizes, numbers, shape, causal);
    keyGradients(context, sizes, numbers, shape, causal);
  },
  // Gradients by the scores would be T x T; only a bias asks for them.
  { supports: (node, device) => fillsTiles(node) && fitsAttention(node, device, bindings), omits: ["scores"] },
);

export const decayAttentionBackward = kernel(
  (context) => {
    const sizes = attentionSizes(context.node);
    const numbers = gatherRowNumbers(context, sizes, true);
    const shape = tileShape(context.device) as TileShape;
    const importance = { dc: wideOf(context, "cRotated"), db: wideOf(context, "bRotated") };
    queryGradients(context, sizes, numbers, shape, true, importance.dc);
    keyGradients(context, sizes, numbers, shape, true, importance.db);
    decayGradients(context, sizes, importance);
  },
  {
    supports: (node, device) => {
      const { T, C } = attentionSizes(node);
      return T === C && fillsTiles(node) && fitsAttention(node, device, bindings);
    },
  },
);

/**
 * Where the gradient of c or b is formed: those of decay are differences of sums over it, so that it must not be rounded
 * to halves before.
 */
function wideOf(context: KernelContext, output: string): Slot {
  const slot = context.output(output);
  const { type, elements } = slot.value;
  return type === "f32" ? slot : { value: context.scratch("f32", elements), access: "read_write" };
}

function inputs(context: KernelContext, { S }: AttentionSizes, { value }: RowNumbers) {
  return {
    q: fours(context.input("q")),
    k: fours(context.input("k")),
    v: fours(context.input("v")),
    ...(S > 0 && { c: fours(context.input("cRotated")), b: fours(context.input("bRotated")) }),
    gradient: fours(context.input("gradient")),
    numbers: { value, access: "read" },
  } satisfies Record<string, Slot>;
}

function queryGradients(
  context: KernelContext,
  sizes: AttentionSizes,
  numbers: RowNumbers,
  shape: TileShape,
  causal: boolean,
  dc?: Slot,
): void {
  const { B, T, C, H, D, S } = sizes;
  const scale = context.attributes.scale as number;
  const has = S > 0;
  const dq = context.output("q");
  const { q, k, v, c, b, gradient } = tileArrays(sizes);
  const { columns } = shape;
  const key = (n: number) => `first + threadColumn * 4u + ${n}u`;
  const own = (place: number) =>
    ofRows((row) => `numbers[${place}u + (batch * ${H}u + head) * ${T}u + min(${row}, ${T - 1}u)]`);

  const importanceBefore = `${declareSums(shape, "sum_c", S)}
let lambda = numbers[${numbers.lambda}u + head];
let g = ${ofRows((place) => `numbers[${numbers.gQuery}u + ${rowAt(q, place)}]`)};
let reach = lambda * numbers[${numbers.queryReach}u + (batch * ${H}u + head) * ${numbers.queryBlocks}u + tile];
var between = 0.0f;
var previous = tile;`;
  const importance = `let block = first / ${decayBlock}u;
let blockTotal = ${totalOf(sizes, numbers, "block")};
if (block != previous && previous < tile) { between += ${totalOf(sizes, numbers, "previous")}; }
previous = block;
let keyReach = numbers[${numbers.keyReach}u + (batch * ${H}u + head) * ${numbers.keyBlocks}u + block];
let important = block == tile || ${matters("reach", "keyReach", "between")};
${declare("w")}
if (important) {
${products(shape, c, b, "w")}
let far = exp(g + between);
${each(
  4,
  (n) => `{
let gOther = numbers[${numbers.gKey}u + ${rowAt(k, key(n))}];
let weight = lambda * select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), block == tile);
s${n} = fma(weight, w${n}, s${n});
w${n} = weight;
}`,
)}
}`;

  context.dispatch({
    label: ".queries",
    slots: { ...inputs(context, sizes, numbers), dq: fours(dq), ...(dc && { dc: fours(dc) }) },
    workgroupSize: [threadsOf(shape)],
    declarations: tileDeclarations(shape),
    body: `${placeOfTile(sizes, T)}
let logSumExp = ${own(numbers.logSumExp)};
let delta = ${own(numbers.delta)};
let position = vec4u(ownRow) + vec4u(0u, 1u, 2u, 3u);
let last = ${causal ? `min(${C}u, firstOwn + ${tileRows}u)` : `${C}u`};
${declareSums(shape, "sum_q", D)}
${has ? importanceBefore : ""}
for (var step = i32((last - 1u) / ${columns}u); step >= 0; step--) {
let first = u32(step) * ${columns}u;
${declare("s")}
${products(shape, q, k, "s")}
${each(4, (n) => `s${n} *= ${scale}f;`)}
${has ? importance : ""}
${declare("d")}
${products(shape, gradient, v, "d")}
${each(4, (n) => {
  const isThere = `vec4<bool>(${key(n)} < ${C}u)`;
  const sees = causal ? `${isThere} & (vec4u(${key(n)}) <= position)` : isThere;
  return `d${n} = select(vec4f(), exp(s${n} - logSumExp) * (d${n} - delta), ${sees});`;
})}
${spread((n) => `d${n}`)}
${gather(shape, k, "sum_q")}
${has ? `if (important) {\n${spread((n) => `d${n} * w${n}`)}\n${gather(shape, b, "sum_c")}\n}` : ""}
}
${storeSums(shape, { ...q, array: "dq" }, dq.value.type, "sum_q", `${scale}f`)}
${dc ? storeSums(shape, { ...c, array: "dc" }, dc.value.type, "sum_c", "1.0f") : ""}`,
    workgroups: context.grid(B * H * Math.ceil(T / tileRows)),
  });
}

function keyGradients(
  context: KernelContext,
  sizes: AttentionSizes,
  numbers: RowNumbers,
  shape: TileShape,
  causal: boolean,
  db?: Slot,
): void {
  const { B, T, C, H, D, E, S } = sizes;
  const scale = context.attributes.scale as number;
  const has = S > 0;
  const [dk, dv] = [context.output("k"), context.output("v")];
  const { q, k, v, c, b, gradient } = tileArrays(sizes);
  const query = (n: number) => `first + threadColumn * 4u + ${n}u`;
  const ofQuery = (place: number, n: number) =>
    `numbers[${place}u + (batch * ${H}u + head) * ${T}u + min(${query(n)}, ${T - 1}u)]`;

  const importanceBefore = `${declareSums(shape, "sum_b", S)}
let lambda = numbers[${numbers.lambda}u + head];
let g = ${ofRows((place) => `numbers[${numbers.gKey}u + ${rowAt(k, place)}]`)};
let rest = exp(min(${totalOf(sizes, numbers, "tile")} - g, vec4f()));
let reach = lambda * numbers[${numbers.keyReach}u + (batch * ${H}u + head) * ${numbers.keyBlocks}u + tile];
var between = 0.0f;
var previous = tile;`;
  const importance = `let block = first / ${decayBlock}u;
if (block != previous && previous > tile) { between += ${totalOf(sizes, numbers, "previous")}; }
previous = block;
let queryReach = numbers[${numbers.queryReach}u + (batch * ${H}u + head) * ${numbers.queryBlocks}u + block];
let important = block == tile || ${matters("reach", "queryReach", "between")};
${declare("w")}
if (important) {
${products(shape, b, c, "w")}
let far = rest * exp(between);
${each(
  4,
  (n) => `{
let gOther = numbers[${numbers.gQuery}u + ${rowAt(q, query(n))}];
let weight = lambda * select(far * exp(min(gOther, 0.0f)), exp(min(gOther - g, vec4f())), block == tile);
s${n} = fma(weight, w${n}, s${n});
w${n} = weight;
}`,
)}
}`;

  context.dispatch({
    label: ".keys",
    slots: { ...inputs(context, sizes, numbers), dk: fours(dk), dv: fours(dv), ...(db && { db: fours(db) }) },
    workgroupSize: [threadsOf(shape)],
    declarations: tileDeclarations(shape),
    body: `${placeOfTile(sizes, C)}
let position = vec4u(ownRow) + vec4u(0u, 1u, 2u, 3u);
${declareSums(shape, "sum_k", D)}
${declareSums(shape, "sum_v", E)}
${has ? importanceBefore : ""}
for (var first = ${causal ? "firstOwn" : "0u"}; first < ${T}u; first += ${shape.columns}u) {
${declare("s")}
${products(shape, k, q, "s")}
${each(4, (n) => `s${n} *= ${scale}f;`)}
${has ? importance : ""}
${declare("d")}
${products(shape, v, gradient, "d")}
${each(4, (n) => {
  const isThere = `vec4<bool>(${query(n)} < ${T}u)`;
  const sees = causal ? `${isThere} & (vec4u(${query(n)}) >= position)` : isThere;
  return `s${n} = select(vec4f(), exp(s${n} - ${ofQuery(numbers.logSumExp, n)}), ${sees});
d${n} = s${n} * (d${n} - ${ofQuery(numbers.delta, n)});`;
})}
${spread((n) => `s${n}`)}
${gather(shape, gradient, "sum_v")}
${spread((n) => `d${n}`)}
${gather(shape, q, "sum_k")}
${has ? `if (important) {\n${spread((n) => `d${n} * w${n}`)}\n${gather(shape, c, "sum_b")}\n}` : ""}
}
${storeSums(shape, { ...k, array: "dk" }, dk.value.type, "sum_k", `${scale}f`)}
${storeSums(shape, { ...v, array: "dv" }, dv.value.type, "sum_v", "1.0f")}
${db ? storeSums(shape, { ...b, array: "db" }, db.value.type, "sum_b", "1.0f") : ""}`,
    workgroups: context.grid(B * H * Math.ceil(C / tileRows)),
  });
}

/**
 * d score / d g_i = score, so g_i gets c_i . dc_i and g_j gets -(b_j . db_j). The total of a block, which its last
 * position holds, takes part in every pair that spans it: it gets what all later blocks have.
 */
function decayGradients(
  context: KernelContext,
  { B, T, H, S }: AttentionSizes,
  { dc, db }: { readonly dc: Slot; readonly db: Slot },
): void {
  const blocks = Math.ceil(T / decayBlock);
  const [gQuery, gKey, ofLambda] = [context.output("gQuery"), context.output("gKey"), context.output("lambda")];
  // Of each block: the sums of read and of read - write.
  const sums = context.scratch("f32", B * H * blocks * 2);
  const narrow = { c: context.output("cRotated"), b: context.output("bRotated") };
  const isNarrow = narrow.c.value !== dc.value;
  context.dispatch({
    label: ".decay",
    slots: {
      c: fours(context.input("cRotated")),
      dc: fours({ ...dc, access: "read" }),
      b: fours(context.input("bRotated")),
      db: fours({ ...db, access: "read" }),
      ...(isNarrow && { dcStored: fours(narrow.c), dbStored: fours(narrow.b) }),
      gQuery,
      gKey,
      sums: { value: sums, access: "read_write" },
    },
    workgroupSize: [decayBlock],
    declarations: sumOfLanes(context.device, decayBlock, "vec2f"),
    body: `let index = ${flatGroup};
let block = index % ${blocks}u;
let head = (index / ${blocks}u) % ${H}u;
let batch = index / ${blocks * H}u;
let t = block * ${decayBlock}u + lane;
var both = vec2f();
if (t < ${T}u && batch < ${B}u) {
let row = (batch * ${T}u + t) * ${H}u + head;
for (var d = row * ${S / 4}u; d < (row + 1u) * ${S / 4}u; d++) {
both += vec2f(dot(vec4f(c[d]), dc[d]), dot(vec4f(b[d]), db[d]));
${isNarrow ? `dcStored[d] = vec4<${narrow.c.value.type}>(dc[d]);\ndbStored[d] = vec4<${narrow.b.value.type}>(db[d]);` : ""}
}
gQuery[row] = ${gQuery.value.type}(both.x);
gKey[row] = ${gKey.value.type}(-both.y);
}
let total = sum_of_lanes(lane, both);
if (lane == 0u && batch < ${B}u) {
sums[index * 2u] = total.x;
sums[index * 2u + 1u] = total.x - total.y;
}`,
    workgroups: context.grid(B * H * blocks),
  });
  dispatchEach(context, {
    label: ".totals",
    slots: { sums: { value: sums, access: "read" }, gKey },
    elements: B * H,
    threads: 64,
    body: `var later = 0.0f;
for (var block = ${blocks}u; block > 0u; block--) {
let last = block * ${decayBlock}u - 1u;
if (last < ${T}u) {
let place = ((i / ${H}u) * ${T}u + last) * ${H}u + i % ${H}u;
gKey[place] = ${gKey.value.type}(f32(gKey[place]) + later);
}
later += sums[(i * ${blocks}u + block - 1u) * 2u + 1u];
}`,
  });
  dispatchEach(context, {
    label: ".lambda",
    slots: { sums: { value: sums, access: "read" }, weight: context.input("lambda"), out: ofLambda },
    elements: H,
    threads: 64,
    body: `var total = 0.0f;
for (var batch = 0u; batch < ${B}u; batch++) {
for (var block = 0u; block < ${blocks}u; block++) { total += sums[((batch * ${H}u + i) * ${blocks}u + block) * 2u]; }
}
out[i] = ${ofLambda.value.type}(total / f32(weight[i]));`,
  });
}
