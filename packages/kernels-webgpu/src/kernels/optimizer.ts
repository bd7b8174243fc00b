// The optimizer over many tensors at once: a step of AdamW, and the norm of all gradients together.

import { count } from "../codegen/index-space.ts";
import { sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, floatLiteral, type Slot } from "../codegen/shader.ts";
import { originOf } from "../fuse.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import type { Value } from "../program.ts";

const threads = 256;
const scalars = ["learningRate", "firstCorrection", "secondCorrection", "gradientScale", "proceed"] as const;
const states = ["parameter", "firstMoment", "secondMoment"] as const;

/** Tensors beside each other: the workgroups of one, then those of the next. Each branch sees `i`, its own place. */
function branches(sizes: readonly number[], perGroup: number, body: (index: number) => string) {
  let groups = 0;
  const text = sizes.map((size, index) => {
    const first = groups;
    groups += Math.ceil(size / perGroup);
    return `${index > 0 ? "else " : ""}if (block < ${groups}u) {\nlet start = (block - ${first}u) * ${perGroup}u;\n${body(index)}\n}`;
  });
  return { text: text.join("\n"), groups };
}

export const adamw = kernel((context) => updateAll([context]), {
  overwrites: { parameter: "parameter", firstMoment: "firstMoment", secondMoment: "secondMoment" },
  joint: {
    key: ({ inputs, attributes: { beta1, beta2, epsilon, weightDecay } }) => [
      ...scalars.flatMap((name) => (inputs[name] ? [originOf(inputs[name])] : [])),
      ...[beta1, beta2, epsilon, weightDecay],
    ],
    build: updateAll,
  },
});

/** Nodes that have their scalars and attributes in common. */
function updateAll(contexts: readonly KernelContext[]): void {
  const [first] = contexts;
  if (!first) return;
  const numbers = first.scratch("f32", scalars.length);
  first.dispatch({
    label: ".numbers",
    slots: {
      ...Object.fromEntries(scalars.map((name) => [name, first.input(name)])),
      numbers: { value: numbers, access: "read_write" },
    },
    workgroupSize: [1],
    body: scalars.map((name, index) => `numbers[${index}] = f32(${name}[0]);`).join("\n"),
    workgroups: [1, 1, 1],
  });
  const most = first.device.limits.maxStorageBuffersPerShaderStage;
  const sized = contexts.filter((context) => sizeOf(context) > 0);
  let batch: KernelContext[] = [];
  let bound = 1;
  for (const context of sized) {
    const own = 1 + states.reduce((total, name) => total + (context.inPlace(name) ? 1 : 2), 0);
    if (bound + own > most) {
      updateTogether(batch, numbers);
      batch = [];
      bound = 1;
    }
    batch.push(context);
    bound += own;
  }
  updateTogether(batch, numbers);
}

const sizeOf = (context: KernelContext) => count(context.sizes(context.node.inputs.parameter));

function updateTogether(contexts: readonly KernelContext[], numbers: Value): void {
  const [first] = contexts;
  if (!first) return;
  const { beta1, beta2, epsilon, weightDecay } = first.attributes as Record<string, number>;
  const slots: Record<string, Slot> = { numbers: { value: numbers, access: "read" } };
  contexts.forEach((context, index) => {
    slots[`gradient${index}`] = context.input("gradient");
    for (const name of states) {
      if (!context.inPlace(name)) slots[`${name}${index}`] = context.input(name);
      slots[`${name}Next${index}`] = context.output(name);
    }
  });
  const { text, groups } = branches(contexts.map(sizeOf), threads, (index) => {
    const context = contexts[index] as KernelContext;
    const old = (name: (typeof states)[number]) => `f32(${name}${context.inPlace(name) ? "Next" : ""}${index}[i])`;
    const next = (name: (typeof states)[number]) => `${name}Next${index}[i] = ${context.output(name).value.type}`;
    return `let i = start + lane;
if (i >= ${sizeOf(context)}u) { return; }
let p = ${old("parameter")};
let m = ${old("firstMoment")};
let v = ${old("secondMoment")};
let g = f32(gradient${index}[i]) * numbers[3];
let updated = updated_moments(p, m, v, g);
${next("parameter")}(select(p, updated.x, proceed));
${next("firstMoment")}(select(m, updated.y, proceed));
${next("secondMoment")}(select(v, updated.z, proceed));`;
  });
  first.dispatch({
    label: `.${contexts.length}`,
    slots,
    workgroupSize: [threads],
    declarations: `fn updated_moments(p: f32, m: f32, v: f32, g: f32) -> vec3f {
let first = m * ${literal(beta1)} + g * ${literal(1 - (beta1 ?? 0))};
let second = v * ${literal(beta2)} + g * g * ${literal(1 - (beta2 ?? 0))};
let step = first / (sqrt(second) / sqrt(numbers[2]) + ${literal(epsilon)});
return vec3f(p * (1.0f - numbers[0] * ${literal(weightDecay)}) - step * (numbers[0] / numbers[1]), first, second);
}`,
    body: `let block = ${flatGroup};
let proceed = numbers[4] != 0.0f;
${text}`,
    workgroups: first.grid(groups),
  });
}

const literal = (value: number | undefined) => floatLiteral(value ?? 0);

/** Elements whose squares one workgroup adds up. */
const perGroup = 16 * 1024;

export const globalNorm = kernel((context) => {
  const { node, device } = context;
  const names = Object.keys(node.inputs).filter((name) => count(context.sizes(node.inputs[name])) > 0);
  const sizes = names.map((name) => count(context.sizes(node.inputs[name])));
  const groupsOf = (some: readonly number[]) => some.reduce((total, size) => total + Math.ceil(size / perGroup), 0);
  const all = groupsOf(sizes);
  const parts = context.scratch("f32", Math.max(all, 1));
  const most = device.limits.maxStorageBuffersPerShaderStage - 1;
  for (let from = 0; from < names.length; from += most) {
    const own = names.slice(from, from + most);
    const { text, groups } = branches(sizes.slice(from, from + most), perGroup, (index) => {
      const size = sizes[from + index] ?? 0;
      return `for (var i = start + lane; i < min(start + ${perGroup}u, ${size}u); i += ${threads}u) {
let x = f32(x${index}[i]);
total = fma(x, x, total);
}`;
    });
    context.dispatch({
      label: `.squares.${own.length}`,
      slots: {
        ...Object.fromEntries(own.map((name, index) => [`x${index}`, context.input(name)])),
        parts: { value: parts, access: "read_write" },
      },
      workgroupSize: [threads],
      declarations: sumOfLanes(device, threads),
      body: `let block = ${flatGroup};
var total = 0.0f;
${text}
let squares = sum_of_lanes(lane, total);
if (lane == 0u && block < ${groups}u) { parts[${groupsOf(sizes.slice(0, from))}u + block] = squares; }`,
      workgroups: context.grid(groups),
    });
  }
  const out = context.output();
  context.dispatch({
    label: ".root",
    slots: { parts: { value: parts, access: "read" }, out },
    workgroupSize: [threads],
    declarations: sumOfLanes(device, threads),
    body: `var total = 0.0f;
for (var i = lane; i < ${all}u; i += ${threads}u) { total += parts[i]; }
let squares = sum_of_lanes(lane, total);
if (lane == 0u) { out[0] = ${out.value.type}(sqrt(squares)); }`,
    workgroups: [1, 1, 1],
  });
});
