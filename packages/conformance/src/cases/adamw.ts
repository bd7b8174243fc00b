import { adamw, DTypeError, f32, ShapeError, type Tensor } from "@sisa/core";
import { booleans, casesOf, floats, given, refusal, testCase, type Values } from "../case.ts";
import { at } from "./formulas.ts";

const scalars = {
  learningRate: given(f32(), [3e-4]),
  firstCorrection: given(f32(), [1 - 0.9 ** 3]),
  secondCorrection: given(f32(), [1 - 0.95 ** 3]),
  gradientScale: given(f32(), [0.5]),
};

const tensors = (shape: readonly (number | string)[]) => ({
  parameter: floats(shape),
  gradient: floats(shape),
  firstMoment: floats(shape, { low: -0.1, high: 0.1 }),
  secondMoment: floats(shape, { low: 0.001, high: 0.1 }),
});

const go = given({ dtype: "bool", shape: [] }, [1]);
const stay = given({ dtype: "bool", shape: [] }, [0]);

function formula(values: Values) {
  const { parameter, gradient, firstMoment, secondMoment } = values;
  const [rate, c1, c2, scale] = [
    at(values.learningRate),
    at(values.firstCorrection),
    at(values.secondCorrection),
    at(values.gradientScale),
  ];
  const count = parameter?.data.length ?? 0;
  const [p, m, v] = [new Float64Array(count), new Float64Array(count), new Float64Array(count)];
  for (let i = 0; i < count; i++) {
    const g = (gradient?.data[i] ?? 0) * scale;
    m[i] = 0.9 * (firstMoment?.data[i] ?? 0) + 0.1 * g;
    v[i] = 0.95 * (secondMoment?.data[i] ?? 0) + 0.05 * g * g;
    const step = (m[i] ?? 0) / c1 / (Math.sqrt((v[i] ?? 0) / c2) + 1e-8);
    p[i] = (parameter?.data[i] ?? 0) * (1 - rate * 0.1) - rate * step;
  }
  return { parameter: p, firstMoment: m, secondMoment: v };
}

export const adamwCases = casesOf(
  "adamw",
  [
    testCase({
      name: "step",
      inputs: { ...tensors([5, 7]), ...scalars, proceed: go },
      program: (inputs) => adamw(inputs, { weightDecay: 0.1 }),
      expected: formula,
      expectedNmse: 1e-12,
      tolerance: { relative: 1e-5 },
    }),
    testCase({
      name: "without-decay",
      inputs: { ...tensors([33]), ...scalars, proceed: go },
      program: (inputs) => adamw(inputs),
    }),
    testCase({
      name: "settings",
      inputs: { ...tensors([33]), ...scalars, proceed: go },
      program: (inputs) => adamw(inputs, { beta1: 0.8, beta2: 0.999, epsilon: 1e-6, weightDecay: 0.01 }),
    }),
    testCase({
      name: "scalar",
      inputs: { ...tensors([]), ...scalars, proceed: go },
      program: (inputs) => adamw(inputs),
    }),
    testCase({
      name: "empty",
      inputs: { ...tensors([0]), ...scalars, proceed: go },
      program: (inputs) => adamw(inputs),
    }),
    testCase({
      name: "first-step",
      inputs: {
        parameter: floats([9]),
        gradient: given(f32(9), [1, -1, 1e-12, -1e-12, 0, 1e6, -1e6, 1e-3, 3]),
        firstMoment: given(f32(9), [0]),
        secondMoment: given(f32(9), [0]),
        learningRate: given(f32(), [3e-4]),
        firstCorrection: given(f32(), [0.1]),
        secondCorrection: given(f32(), [0.05]),
        gradientScale: given(f32(), [1]),
        proceed: go,
      },
      program: (inputs) => adamw(inputs, { weightDecay: 0.1 }),
      note: "moments of zero, gradients of all sizes",
    }),
    testCase({
      name: "stay",
      inputs: {
        ...tensors([6]),
        gradient: given(f32(6), [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1, 3e38, -0]),
        ...scalars,
        proceed: stay,
      },
      program: (inputs) => adamw(inputs, { weightDecay: 0.1 }),
      tolerance: { exact: true },
      expected: ({ parameter, firstMoment, secondMoment }) => ({
        parameter: parameter?.data ?? [],
        firstMoment: firstMoment?.data ?? [],
        secondMoment: secondMoment?.data ?? [],
      }),
      ieee: true,
      note: "where it may not proceed everything stays bit for bit, whatever the gradient",
    }),
    testCase({
      name: "stay-on-overflow",
      inputs: { ...tensors([6]), gradient: given(f32(6), [3e38, -3e38]), ...scalars, proceed: stay },
      program: (inputs) => adamw(inputs),
      tolerance: { exact: true },
    }),
    testCase({
      name: "symbolic",
      inputs: { ...tensors(["T", 3]), ...scalars, proceed: booleans([]) },
      program: (inputs) => adamw(inputs, { weightDecay: 0.1 }),
      sizes: [{ T: 5 }, { T: 1 }, { T: 0 }],
    }),
  ],
  [
    refusal({
      name: "shapes",
      inputs: {
        parameter: f32(4),
        gradient: f32(3),
        firstMoment: f32(4),
        secondMoment: f32(4),
        learningRate: f32(),
        firstCorrection: f32(),
        secondCorrection: f32(),
        gradientScale: f32(),
        proceed: { dtype: "bool", shape: [] },
      },
      program: (inputs) => adamw(inputs),
      error: ShapeError,
      message: "adamw: gradient must be [4] like parameter, got [3]",
    }),
    refusal({
      name: "learning rate",
      inputs: {
        parameter: f32(4),
        gradient: f32(4),
        firstMoment: f32(4),
        secondMoment: f32(4),
        learningRate: f32(1),
        firstCorrection: f32(),
        secondCorrection: f32(),
        gradientScale: f32(),
        proceed: { dtype: "bool", shape: [] },
      },
      program: (inputs) => adamw(inputs),
      error: ShapeError,
      message: "adamw: learningRate must be [], got [1]",
    }),
    refusal({
      name: "proceed",
      inputs: {
        parameter: f32(4),
        gradient: f32(4),
        firstMoment: f32(4),
        secondMoment: f32(4),
        learningRate: f32(),
        firstCorrection: f32(),
        secondCorrection: f32(),
        gradientScale: f32(),
        proceed: f32(),
      },
      program: (inputs) => adamw({ ...inputs, proceed: inputs.proceed as unknown as Tensor<"bool"> }),
      error: DTypeError,
      message: "adamw: proceed must be bool, got float32[]",
    }),
  ],
);
