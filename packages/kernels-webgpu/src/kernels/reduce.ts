// Sums and maxima over axes, of tensors or of expressions that never lie in memory.

import type { Node } from "@sisa/core";
import { stored } from "../codegen/emitter.ts";
import { count, Place } from "../codegen/index-space.ts";
import { maxOfLanes, sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import type { Capabilities } from "../device.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import { dispatchEach } from "./each.ts";

interface Reduction {
  readonly start: string;
  readonly combine: (total: string, x: string) => string;
  /** The same for all lanes of a workgroup: a declaration, and what it is called. */
  readonly lanes: { readonly declare: (device: Capabilities, lanes: number) => string; readonly name: string };
}

const isWhole = (node: Node) => node.inputs.x?.dtype === "int32";
const sums = (node: Node): Reduction => ({
  start: isWhole(node) ? "0i" : "0.0f",
  combine: (total, x) => `${total} + ${x}`,
  lanes: {
    declare: (device, lanes) => sumOfLanes(device, lanes, isWhole(node) ? "i32" : "f32"),
    name: "sum_of_lanes",
  },
});
const maxima: Reduction = {
  start: "-infinity()",
  combine: (total, x) => `maximum(${total}, ${x})`,
  lanes: { declare: maxOfLanes, name: "max_of_lanes" },
};

export const sum = kernel((context) => reduce(context, sums(context.node)), { absorbs: "x" });
export const max = kernel((context) => reduce(context, maxima), { absorbs: "x" });

/** How threads of a workgroup share its work: `columns` results, each by `lanes` threads. */
interface Shape {
  readonly columns: number;
  readonly lanes: number;
}

/** Workgroups that fill a GPU; fewer are made more by cutting what is reduced into segments. */
const enough = 256;

function reduce(context: KernelContext, { start, combine, lanes: ofLanes }: Reduction): void {
  const { node, sizes, attributes, device } = context;
  const shape = sizes(node.inputs.x);
  const axes = attributes.axes as readonly number[];
  const keptAxes = shape.flatMap((_, axis) => (axes.includes(axis) ? [] : [axis]));
  const kept = keptAxes.map((axis) => shape[axis] ?? 1);
  const reduced = axes.map((axis) => shape[axis] ?? 1);
  const results = count(kept);
  const terms = count(reduced);
  if (results === 0) return;

  const innermost = shape.findLastIndex((size) => size !== 1);
  const { columns, lanes } = shapeFor(results, terms, axes.includes(innermost));
  const groups = Math.ceil(results / columns);
  const perLane = Math.ceil(terms / lanes);
  const segments = groups >= enough || perLane < 16 ? 1 : Math.min(Math.ceil(enough / groups), Math.floor(perLane / 8));
  const scalar = isWhole(node) ? "i32" : "f32";
  const output = context.output();
  const partial = segments > 1 ? context.scratch(scalar, segments * results) : undefined;
  const target: Slot = partial ? { value: partial, access: "read_write" } : output;

  let element = "";
  const { lines, slots } = context.emit((scope, read) => {
    if (count(shape) === 0) return;
    const at = new Array<string>(shape.length).fill("0u");
    const fill = (ofAxes: readonly number[], place: Place) => {
      ofAxes.forEach((axis, index) => {
        at[axis] = place.coordinates[index] ?? "0u";
      });
    };
    fill(keptAxes, Place.flat(scope, kept, "column"));
    fill(axes, Place.flat(scope, reduced, "term"));
    element = read(Place.at(scope, shape, at));
  });
  const loop =
    element === ""
      ? ""
      : `for (var term = segment * ${Math.ceil(terms / segments)}u + worker; term < min(${terms}u, (segment + 1u) * ${Math.ceil(terms / segments)}u); term += ${lanes}u) {
${lines.join("\n")}
total = ${combine("total", element)};
}`;
  context.dispatch({
    label: segments > 1 ? ".segments" : "",
    slots: { ...slots, out: target },
    workgroupSize: [columns * lanes],
    declarations:
      columns === 1
        ? ofLanes.declare(device, lanes)
        : lanes > 1
          ? `var<workgroup> totals: array<${scalar}, ${columns * lanes}>;`
          : "",
    body: `let block = ${flatGroup};
let segment = block / ${groups}u;
let column = (block % ${groups}u) * ${columns}u + lane % ${columns}u;
let worker = lane / ${columns}u;
var total: ${scalar} = ${start};
if (column < ${results}u && segment < ${segments}u) {
${loop}
}
${columns === 1 ? `total = ${ofLanes.name}(lane, total);` : treeOf(lanes, columns, combine)}
if (worker == 0u && column < ${results}u && segment < ${segments}u) {
out[segment * ${results}u + column] = ${stored(target.value.type, "total")};
}`,
    workgroups: context.grid(groups * segments),
  });
  if (partial === undefined) return;
  dispatchEach(context, {
    label: ".total",
    slots: { partial: { value: partial, access: "read" }, out: output },
    elements: results,
    threads: 64,
    body: `var total: ${scalar} = ${start};
for (var segment = 0u; segment < ${segments}u; segment++) {
let x = partial[segment * ${results}u + i];
total = ${combine("total", "x")};
}
out[i] = ${stored(output.value.type, "total")};`,
  });
}

/** Neighbouring threads read neighbouring elements: along what is reduced where that is innermost, else across results. */
function shapeFor(results: number, terms: number, alongTerms: boolean): Shape {
  if (terms <= 4) return { columns: 64, lanes: 1 };
  if (alongTerms) {
    const lanes = terms >= 1024 ? 256 : terms >= 128 ? 64 : 16;
    return { columns: lanes >= 64 ? 1 : 4, lanes };
  }
  return results >= 32 ? { columns: 32, lanes: 8 } : { columns: 8, lanes: 32 };
}

/** Adds up what the lanes of each column hold, in a fixed order; lane 0 gets the result in `total`. */
function treeOf(lanes: number, columns: number, combine: Reduction["combine"]): string {
  if (lanes === 1) return "";
  const lines = ["totals[lane] = total;", "workgroupBarrier();"];
  for (let half = lanes / 2; half >= 1; half /= 2) {
    lines.push(`if (worker < ${half}u) {`);
    lines.push(`totals[lane] = ${combine("totals[lane]", `totals[lane + ${half * columns}u]`)};`);
    lines.push("}", "workgroupBarrier();");
  }
  return [...lines, "total = totals[lane];"].join("\n");
}

/** Place of the largest element of the last axis; the first of equal ones. */
export const argmax = kernel((context) => {
  const shape = context.sizes(context.node.inputs.x);
  const size = shape.at(-1) ?? 1;
  const rows = count(shape.slice(0, -1));
  const { value: x } = context.input("x");
  context.dispatch({
    label: "",
    slots: { x: { value: x, access: "read" }, out: context.output() },
    workgroupSize: [64],
    declarations: "var<workgroup> best: array<f32, 64>;\nvar<workgroup> where_: array<u32, 64>;",
    body: `let row = ${flatGroup};
let valid = row < ${rows}u;
var largest = -infinity();
var place = ${size}u;
if (valid) {
for (var i = lane; i < ${size}u; i += 64u) {
let value = f32(x[row * ${size}u + i]);
if (value > largest || place == ${size}u) { largest = value; place = i; }
}
}
best[lane] = largest;
where_[lane] = place;
workgroupBarrier();
for (var half = 32u; half > 0u; half = half >> 1u) {
if (lane < half) {
let other = best[lane + half];
let there = where_[lane + half];
if (there < ${size}u && (other > best[lane] || (other == best[lane] && there < where_[lane]))) {
best[lane] = other;
where_[lane] = there;
}
}
workgroupBarrier();
}
if (lane == 0u && valid) { out[row] = i32(where_[0]); }`,
    workgroups: context.grid(rows),
  });
});
