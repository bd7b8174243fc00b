// Softmax attention forward, with and without the importance term of SISA: over a whole sequence or a cache.

import { decayBlock } from "@sisa/core";
import { type KernelContext, kernel } from "../lowering.ts";
import { attendFewRows, isForFewRows } from "./attention-decode.ts";
import {
  attentionSizes,
  fitsAttention,
  gatherRowNumbers,
  matters,
  negligible,
  placeOfTile,
  tileArrays,
  totalOf,
} from "./attention-parts.ts";
import {
  declare,
  declareSums,
  each,
  fours,
  gather,
  largestOfRows,
  ofRows,
  products,
  rowAt,
  scaleSums,
  spread,
  storeSums,
  sumOfRows,
  type TileShape,
  threadsOf,
  tileDeclarations,
  tileRows,
  tileShape,
} from "./attention-tiles.ts";

const bindings = 8;

export const attention = kernel((context) => attend(context, context.attributes.causal as boolean), {
  supports: (node, device) => fitsAttention(node, device, bindings),
});

export const decayAttention = kernel((context) => attend(context, true), {
  supports: (node, device) => fitsAttention(node, device, bindings),
});

function attend(context: KernelContext, causal: boolean): void {
  if (isForFewRows(context)) attendFewRows(context, causal);
  else attendTiles(context, causal, tileShape(context.device) as TileShape);
}

function attendTiles(context: KernelContext, causal: boolean, shape: TileShape): void {
  const sizes = attentionSizes(context.node);
  const { B, T, C, H, E, S } = sizes;
  const scale = context.attributes.scale as number;
  const numbers = gatherRowNumbers(context, sizes, false);
  const { q, k, v, c, b } = tileArrays(sizes);
  const { columns } = shape;
  const has = S > 0;
  const [out, logSumExp] = [context.output(), context.output("logSumExp")];
  const own = { length: T, heads: H };
  const other = { length: C, heads: H };
  const key = (n: number) => `first + threadColumn * 4u + ${n}u`;

  const importanceBefore = `let lambda = numbers[${numbers.lambda}u + head];
let g = ${ofRows((place) => `numbers[${numbers.gQuery}u + ${rowAt(own, place)}]`)};
let reach = lambda * numbers[${numbers.queryReach}u + (batch * ${H}u + head) * ${numbers.queryBlocks}u + tile];
let ownBlock = position / ${decayBlock};
let firstBlock = (start + i32(firstOwn)) / ${decayBlock};
var between = vec4f();
var leastBetween = 0.0f;
var previous = (last - 1) / ${decayBlock};`;
  // Keys are walked from the nearest to the farthest, so the totals between come one at a time.
  const importance = `let block = i32(first) / ${decayBlock};
let blockTotal = ${totalOf(sizes, numbers, "block")};
if (block != previous) {
let passed = ${totalOf(sizes, numbers, "previous")};
between += select(vec4f(), vec4f(passed), vec4i(previous) < ownBlock);
leastBetween += select(0.0f, passed, previous < firstBlock);
previous = block;
}
let keyReach = numbers[${numbers.keyReach}u + (batch * ${H}u + head) * ${numbers.keyBlocks}u + u32(block)];
if (block >= firstBlock || ${matters("reach", "keyReach", "leastBetween")}) {
${declare("w")}
${products(shape, c, b, "w")}
let far = exp(g + between);
${each(
  4,
  (n) => `{
let gOther = numbers[${numbers.gKey}u + ${rowAt(other, key(n))}];
let decay = select(far * exp(min(blockTotal - gOther, 0.0f)), exp(min(g - gOther, vec4f())), vec4i(block) >= ownBlock);
s${n} = fma(lambda * decay, w${n}, s${n});
}`,
)}
}`;

  context.dispatch({
    label: "",
    slots: {
      q: fours(context.input("q")),
      k: fours(context.input("k")),
      v: fours(context.input("v")),
      ...(has && { c: fours(context.input("cRotated")), b: fours(context.input("bRotated")) }),
      numbers: { value: numbers.value, access: "read" },
      out: fours(out),
      logSumExp,
    },
    workgroupSize: [threadsOf(shape)],
    declarations: tileDeclarations(shape),
    body: `${placeOfTile(sizes, T)}
let start = bitcast<i32>(numbers[${numbers.positions}u + batch]);
let seen = min(bitcast<i32>(numbers[${numbers.positions + B}u + batch]), ${C});
let position = vec4i(start + i32(ownRow)) + vec4i(0, 1, 2, 3);
let last = ${causal ? `min(seen, start + i32(min(firstOwn + ${tileRows}u, ${T}u)))` : "seen"};
${declareSums(shape, "o", E)}
var largest = vec4f(${negligible.score}f);
var total = vec4f();
${has ? importanceBefore : ""}
for (var step = (last - 1) / ${columns}; step >= 0 && last > 0; step--) {
let first = u32(step) * ${columns}u;
${declare("s")}
${products(shape, q, k, "s")}
${each(4, (n) => `s${n} *= ${scale}f;`)}
${has ? importance : ""}
${each(4, (n) => {
  const isSeen = `vec4<bool>(i32(${key(n)}) < seen)`;
  const sees = causal ? `${isSeen} & (vec4i(i32(${key(n)})) <= position)` : isSeen;
  return `s${n} = select(vec4f(${negligible.score}f), s${n}, ${sees});`;
})}
${largestOfRows(shape, "max(max(s0, s1), max(s2, s3))", "largest")}
let fix = exp(largest - peak);
largest = peak;
total *= fix;
${scaleSums(shape, "o", E, "fix")}
${each(
  4,
  (n) => `s${n} = select(exp(s${n} - peak), vec4f(), s${n} <= vec4f(${negligible.score}f));
total += s${n};`,
)}
${spread((n) => `s${n}`)}
${gather(shape, v, "o")}
}
${sumOfRows(shape, "total", "sum")}
let none = sum == vec4f();
let share = select(1.0f / sum, vec4f(), none);
${storeSums(shape, { ...q, array: "out", width: E }, out.value.type, "o", "share")}
if (threadColumn == 0u) {
let value = select(largest + log(sum), vec4f(-infinity()), none);
${each(4, (r) => `if (ownRow + ${r}u < ${T}u) { logSumExp[(batch * ${H}u + head) * ${T}u + ownRow + ${r}u] = ${logSumExp.value.type}(value[${r}]); }`)}
}`,
    workgroups: context.grid(B * H * Math.ceil(T / tileRows)),
  });
}
