import { causalConv, DTypeError, f32, i32, ShapeError, type Tensor } from "@sisa/core";
import { casesOf, normals, refusal, testCase, type Values } from "../case.ts";
import { at } from "./formulas.ts";

function formula({ x, weight, bias, before }: Values) {
  const [batches = 0, length = 0, channels = 0] = x?.shape ?? [];
  const width = weight?.shape[1] ?? 1;
  const value = new Float64Array(x?.data.length ?? 0);
  for (let batch = 0; batch < batches; batch++) {
    for (let t = 0; t < length; t++) {
      for (let channel = 0; channel < channels; channel++) {
        let total = bias ? at(bias, channel) : 0;
        for (let w = 0; w < width; w++) {
          const row = t - (width - 1) + w;
          const earlier = before ? at(before, batch, row + width - 1, channel) : 0;
          total += at(weight, channel, w) * (row < 0 ? earlier : at(x, batch, row, channel));
        }
        value[(batch * length + t) * channels + channel] = total;
      }
    }
  }
  return { value };
}

export const causalConvCases = casesOf(
  "causalConv",
  [
    testCase({
      name: "with-bias",
      inputs: { x: normals([2, 7, 3]), weight: normals([3, 4]), bias: normals([3]) },
      program: (inputs) => causalConv(inputs),
      expected: formula,
    }),
    testCase({
      name: "without-bias",
      inputs: { x: normals([2, 7, 3]), weight: normals([3, 3]) },
      program: (inputs) => causalConv(inputs),
      expected: formula,
    }),
    testCase({
      name: "width-one",
      inputs: { x: normals([2, 5, 3]), weight: normals([3, 1]) },
      program: (inputs) => causalConv(inputs),
      expected: formula,
    }),
    testCase({
      name: "shorter-than-the-kernel",
      inputs: { x: normals([1, 2, 3]), weight: normals([3, 4]) },
      program: (inputs) => causalConv(inputs),
      expected: formula,
    }),
    testCase({
      name: "continued",
      inputs: { x: normals([2, 5, 3]), weight: normals([3, 4]), bias: normals([3]), before: normals([2, 3, 3]) },
      program: (inputs) => causalConv(inputs),
      expected: formula,
      gradients: [],
    }),
    testCase({
      name: "continued-one-step",
      inputs: { x: normals([2, 1, 3]), weight: normals([3, 4]), before: normals([2, 3, 3]) },
      program: (inputs) => causalConv(inputs),
      expected: formula,
      gradients: [],
    }),
    testCase({
      name: "symbolic",
      inputs: { x: normals(["B", "T", 5]), weight: normals([5, 4]), bias: normals([5]) },
      program: (inputs) => causalConv(inputs),
      sizes: [
        { B: 2, T: 9 },
        { B: 1, T: 1 },
        { B: 2, T: 0 },
      ],
    }),
    testCase({
      name: "perf-mamba2-8x512",
      inputs: { x: normals([8, 512, 640]), weight: normals([640, 4]), bias: normals([640]) },
      program: (inputs) => causalConv(inputs),
      perf: true,
    }),
  ],
  [
    refusal({
      name: "channels",
      inputs: { x: f32(2, 5, 3), weight: f32(4, 4) },
      program: (inputs) => causalConv(inputs),
      error: ShapeError,
      message: "causalConv: weight must be [C,W] = [3,W], got [4,4]",
    }),
    refusal({
      name: "rows before",
      inputs: { x: f32(2, 5, 3), weight: f32(3, 4), before: f32(2, 4, 3) },
      program: (inputs) => causalConv(inputs),
      error: ShapeError,
      message: "causalConv: before must be [B,W-1,C] = [2,3,3], got [2,4,3]",
    }),
    refusal({
      name: "integers",
      inputs: { x: i32(2, 5, 3), weight: f32(3, 4) },
      program: ({ x, weight }) => causalConv({ x: x as unknown as Tensor, weight }),
      error: DTypeError,
      message: "causalConv: x must be float, got int32[2,5,3]",
    }),
  ],
);
