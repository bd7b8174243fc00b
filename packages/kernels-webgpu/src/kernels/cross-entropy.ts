// The loss of a language model's head with its gradients: some rows of logits at a time, of which each is read once for
// its largest element and its sum, and overwritten by its gradient.

import { sizesOf } from "@sisa/core";
import { count } from "../codegen/index-space.ts";
import { maxOfLanes, sumOfLanes } from "../codegen/lanes.ts";
import { flatGroup, type Slot } from "../codegen/shader.ts";
import { type KernelContext, kernel } from "../lowering.ts";
import { multiply } from "./matmul.ts";
import type { Product } from "./product.ts";

const threads = 256;

function sizesFor({ inputs }: KernelContext["node"]) {
  const [V = 0, M = 0] = sizesOf(inputs.weight?.shape ?? []);
  return { N: count(sizesOf(inputs.targets?.shape ?? [])), V, M };
}

export const linearCrossEntropy = kernel(
  (context) => {
    const { N, V, M } = sizesFor(context.node);
    const { chunk } = context.attributes as { chunk: number };
    const withGradients = context.needs("gradX") || context.needs("gradWeight");
    const fit = Math.floor(context.device.limits.maxStorageBufferBindingSize / (4 * V));
    const wanted = Math.ceil((N * Math.min(chunk, V)) / V / 64) * 64;
    const rows = Math.min(N, wanted, Math.max(4, fit - (fit % 4)));
    const logits = context.scratch("f32", rows * V);
    const losses = context.scratch("f32", N);
    const given: Slot = { value: logits, access: "read" };
    const matrices = { transposeA: false, transposeB: false, leading: [], leadingA: [], leadingB: [] };
    const { slot: status, fail } = context.check({
      message: (id) => `linearCrossEntropy: expected targets from 0 to ${V - 1}, got ${id}`,
    });
    const product = (more: Partial<Product> & Pick<Product, "a" | "b" | "out" | "m" | "n" | "k">) =>
      multiply(context, { ...matrices, ...more });
    const [x, weight] = [context.input("x"), context.input("weight")];
    for (let first = 0; first < N; first += rows) {
      const m = Math.min(rows, N - first);
      const out: Slot = { value: logits, access: "read_write" };
      product({ a: x, b: weight, out, m, n: V, k: M, transposeB: true, offsets: { a: first * M } });
      context.dispatch({
        label: ".loss",
        slots: {
          logits: out,
          targets: context.input("targets"),
          losses: { value: losses, access: "read_write" },
          status,
        },
        workgroupSize: [threads],
        declarations: `${maxOfLanes(context.device, threads)}
${sumOfLanes(context.device, threads)}`,
        // A grid can have more groups than rows, and a row must not be overwritten twice.
        body: `let row = ${flatGroup};
if (row >= ${m}u) { return; }
let begin = row * ${V}u;
let target_ = targets[${first}u + row];
if (target_ < 0 || target_ >= ${V}) { ${fail("target_")} }
var peak = -3e38f;
var total = 0.0f;
for (var i = lane; i < ${V}u; i += ${threads}u) {
let value = logits[begin + i];
let next = max(peak, value);
total = fma(total, exp(peak - next), exp(value - next));
peak = next;
}
let largest = max_of_lanes(lane, peak);
let logSumExp = largest + exact_log(sum_of_lanes(lane, total * exp(peak - largest)));
let chosen = u32(clamp(target_, 0, ${V - 1}));
if (lane == 0u) { losses[${first}u + row] = logSumExp - logits[begin + chosen]; }
${
  withGradients
    ? `storageBarrier();
workgroupBarrier();
for (var i = lane; i < ${V}u; i += ${threads}u) {
logits[begin + i] = (exact_exp(logits[begin + i] - logSumExp) - select(0.0f, 1.0f, i == chosen)) * ${1 / N}f;
}`
    : ""
}`,
        workgroups: context.grid(m),
      });
      if (context.needs("gradX")) {
        product({ a: given, b: weight, out: context.output("gradX"), m, n: M, k: V, offsets: { out: first * M } });
      }
      if (context.needs("gradWeight")) {
        const accumulate = first > 0;
        const of = { a: given, b: x, out: context.output("gradWeight"), m: V, n: M, k: m };
        product({ ...of, transposeA: true, offsets: { b: first * M }, accumulate });
      }
    }
    const value = context.output();
    context.dispatch({
      label: ".mean",
      slots: { losses: { value: losses, access: "read" }, value },
      workgroupSize: [threads],
      declarations: sumOfLanes(context.device, threads),
      body: `var total = 0.0f;
for (var i = lane; i < ${N}u; i += ${threads}u) { total += losses[i]; }
let sum = sum_of_lanes(lane, total);
if (lane == 0u) { value[0] = ${value.value.type}(sum / ${N}.0f); }`,
      workgroups: [1, 1, 1],
    });
  },
  {
    supports(node) {
      const { N, V, M } = sizesFor(node);
      return N * V * M > 0;
    },
  },
);
