// Root-mean-square norms over the last axis, forward and backward: a workgroup for each row, or for some rows after each
// other where the weight's gradient is summed over them.

import { count } from "../codegen/index-space.ts";
import { sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, floatLiteral, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";

const threads = 64;

/** Rows and their width; elements are read `lanes` at a time, `type` each. */
function layout(context: KernelContext) {
  const shape = context.sizes(context.node.inputs.x);
  const width = shape.at(-1) ?? 1;
  const four = width % 4 === 0;
  const steps = four ? width / 4 : width;
  const bind = (slot: Slot): Slot => (four ? { ...slot, type: `vec4<${slot.value.type}>` } : slot);
  return {
    rows: count(shape.slice(0, -1)),
    width,
    steps,
    type: four ? "vec4f" : "f32",
    bind,
    stored: (slot: Slot, value: string) =>
      four ? `vec4<${slot.value.type}>(${value})` : `${slot.value.type}(${value})`,
    /** The sum of a vector's elements. */
    whole: (value: string) => (four ? `dot(${value}, vec4f(1.0f))` : value),
  };
}

const holdsElements = { supports: ({ inputs }: KernelContext["node"]) => inputs.x?.shape.at(-1)?.value !== 0 };

export const rmsNorm = kernel((context) => {
  const { rows, width, steps, type, bind, stored, whole } = layout(context);
  if (rows === 0) return;
  const out = context.output();
  context.dispatch({
    label: "",
    slots: { x: bind(context.input("x")), weight: bind(context.input("weight")), out: bind(out) },
    workgroupSize: [threads],
    declarations: sumOfLanes(context.device, threads),
    body: `let row = min(${flatGroup}, ${rows - 1}u);
var total = 0.0f;
for (var i = lane; i < ${steps}u; i += ${threads}u) {
let value = ${type}(x[row * ${steps}u + i]);
total += ${whole("value * value")};
}
let inverse = 1.0f / sqrt(sum_of_lanes(lane, total) / ${width}.0f + ${floatLiteral(context.attributes.epsilon as number)});
for (var i = lane; i < ${steps}u; i += ${threads}u) {
out[row * ${steps}u + i] = ${stored(out, `${type}(x[row * ${steps}u + i]) * inverse * ${type}(weight[i])`)};
}`,
    workgroups: context.grid(rows),
  });
}, holdsElements);

/** Workgroups of the backward pass, each with as many rows. */
const mostGroups = 512;

export const rmsNormBackward = kernel((context) => {
  const { rows, width, steps, type, bind, stored, whole } = layout(context);
  const { device } = context;
  const groups = Math.max(1, Math.min(mostGroups, rows));
  const perGroup = Math.ceil(rows / groups);
  const held = Math.ceil(steps / threads);
  const parts = context.scratch("f32", groups * width);
  const [dx, dw] = [context.output("x"), context.output("weight")];
  context.dispatch({
    label: ".rows",
    slots: {
      x: bind(context.input("x")),
      weight: bind(context.input("weight")),
      gradient: bind(context.input("gradient")),
      dx: bind(dx),
      parts: bind({ value: parts, access: "read_write" }),
    },
    workgroupSize: [threads],
    declarations: sumOfLanes(device, threads, "vec2f"),
    body: `let group_ = ${flatGroup};
if (group_ >= ${groups}u) { return; }
var slope: array<${type}, ${held}>;
for (var row = group_ * ${perGroup}u; row < min(${rows}u, (group_ + 1u) * ${perGroup}u); row++) {
var total = vec2f();
for (var i = lane; i < ${steps}u; i += ${threads}u) {
let value = ${type}(x[row * ${steps}u + i]);
let scaled = ${type}(gradient[row * ${steps}u + i]) * ${type}(weight[i]);
total += vec2f(${whole("value * value")}, ${whole("scaled * value")});
}
let sums = sum_of_lanes(lane, total);
let inverse = 1.0f / sqrt(sums.x / ${width}.0f + ${floatLiteral(context.attributes.epsilon as number)});
let meanProduct = sums.y * inverse * inverse / ${width}.0f;
for (var n = 0u; n < ${held}u; n++) {
let i = lane + n * ${threads}u;
if (i < ${steps}u) {
let value = ${type}(x[row * ${steps}u + i]);
let given = ${type}(gradient[row * ${steps}u + i]);
dx[row * ${steps}u + i] = ${stored(dx, `inverse * (given * ${type}(weight[i]) - value * meanProduct)`)};
slope[n] += given * value * inverse;
}
}
}
for (var n = 0u; n < ${held}u; n++) {
let i = lane + n * ${threads}u;
if (i < ${steps}u) { parts[group_ * ${steps}u + i] = slope[n]; }
}`,
    workgroups: context.grid(groups),
  });
  if (!context.needs("weight")) return;
  context.dispatch({
    label: ".weight",
    slots: { parts: { value: parts, access: "read" }, dw },
    workgroupSize: [32, 8],
    declarations: "var<workgroup> totals: array<f32, 256>;",
    body: `let column = ${flatGroup} * 32u + local.x;
var total = 0.0f;
if (column < ${width}u) { for (var n = local.y; n < ${groups}u; n += 8u) { total += parts[n * ${width}u + column]; } }
totals[lane] = total;
workgroupBarrier();
if (local.y == 0u && column < ${width}u) {
for (var n = 1u; n < 8u; n++) { total += totals[n * 32u + lane]; }
dw[column] = ${dw.value.type}(total);
}`,
    workgroups: context.grid(Math.ceil(width / 32)),
  });
}, holdsElements);
