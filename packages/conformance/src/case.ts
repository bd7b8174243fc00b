// What a case is: a program of one or a few operations, how its inputs are made, and how close a backend must come.
// Cases are data; the modes in `modes/` run them.

import {
  type AnyTensor,
  type DimLike,
  type DType,
  type DTypeOfKind,
  f32,
  type Kind,
  type KindOfSpec,
  type NdArray,
  type RandomStream,
  type SisaError,
  type Tensor,
  type TensorSpec,
} from "@sisa/core";

/** How an input looks and what it holds. */
export interface InputRecipe<K extends Kind = Kind> {
  readonly spec: TensorSpec<K>;
  /** The elements, row major; they are rounded to the dtype afterwards. */
  fill(stream: RandomStream, count: number): ArrayLike<number>;
}

/** How close an output must be. Whole numbers and truth values must always be equal. */
export interface Tolerance {
  /** Largest sum of squared errors over the sum of squares. Default by dtype, see compare.ts. */
  readonly nmse?: number;
  /** Largest error of each element as a part of it, in addition to `nmse`. */
  readonly relative?: number;
  /** Errors of single elements up to this count as none. Default 0. */
  readonly absolute?: number;
  /** Every element must be the same number, the sign of zero included. */
  readonly exact?: boolean;
  /** The output is an angle: its largest error in radians, whole turns left out. Nothing else is compared. */
  readonly angle?: number;
  /** Why this is looser than the default. */
  readonly reason?: string;
}

export type Sizes = { readonly [symbol: string]: number };
export type Values = { readonly [name: string]: NdArray };
export type Program = (inputs: { readonly [name: string]: AnyTensor }) => AnyTensor | Results;
type Results = { readonly [name: string]: AnyTensor };

export interface Case {
  readonly name: string;
  readonly inputs: { readonly [name: string]: InputRecipe };
  readonly program: Program;
  /** What the symbols in the inputs' shapes stand for; the case runs once for each entry. Default: no symbols, one run. */
  readonly sizes: readonly Sizes[];
  /** What the case is there to show, where its name does not say it. */
  readonly note?: string;
  readonly tolerance?: Tolerance;
  /** For outputs that differ from the others, by name. */
  readonly tolerances?: { readonly [output: string]: Tolerance };
  readonly gradientTolerance?: Tolerance;
  /**
   * Inputs that gradients are taken by. Default: every float input, but none where the case is marked `ieee` or `fails`,
   * or gives no float.
   */
  readonly gradients?: readonly string[];
  /** How gradients are compared with finite differences; "none" where they say nothing, as at kinks. */
  readonly differences?: Differences | "none";
  /** Needs NaN, infinities, the sign of zero or the smallest numbers as IEEE 754 has them. */
  readonly ieee?: boolean;
  /** Compare with the reference that rounds every result, where overflow on the way is what the case is about. */
  readonly rounded?: boolean;
  /** What the outputs must be by an independent formula, for float64. Outputs that it leaves out are not compared. */
  expected?(inputs: Values): { readonly [output: string]: ArrayLike<number> };
  /** Largest NMSE between the formula and the reference in float64. Default 1e-20; constants of a graph are float32. */
  readonly expectedNmse?: number;
  /**
   * What the gradients must be, where finite differences say nothing. `weights` holds the gradient of each output.
   * Inputs that it leaves out are not compared.
   */
  expectedGradients?(inputs: Values, weights: Values): { readonly [input: string]: ArrayLike<number> };
  /** Runs this many times; all results must be equal bit for bit. */
  readonly repeat?: number;
  /** Reading the result must fail with this error, or one derived from it (for the reference; others: any SisaError). */
  readonly fails?: ErrorClass;
  /** Measured in mode perf, and run in no other. */
  readonly perf?: boolean;
  /** Left out of the fast subset. */
  readonly slow?: boolean;
}

export interface Differences {
  /** Distance of the points, at inputs of size 1. Default 1e-4. */
  readonly step?: number;
  /** Elements of each input that are varied one at a time, beside one random direction. Default 3. */
  readonly elements?: number;
  /** Largest relative error. Default 1e-6. */
  readonly relative?: number;
}

/** A class of errors of @sisa/core. */
export type ErrorClass = {
  readonly code: string;
  readonly prototype: SisaError;
  isInstance(value: unknown): boolean;
  readonly name: string;
};

/** A use of an operation that must be refused while tracing, and what the user must be told. */
export interface Refusal {
  readonly name: string;
  readonly inputs: { readonly [name: string]: TensorSpec };
  readonly program: Program;
  readonly error: ErrorClass;
  /** The whole message. */
  readonly message: string;
}

/** All cases of an operation, or of a function that is spelt with operations. */
export interface OpCases {
  readonly op: string;
  readonly cases: readonly Case[];
  readonly refusals: readonly Refusal[];
}

type Recipes = { readonly [name: string]: InputRecipe };
type Traced<I extends Recipes> = { readonly [N in keyof I]: I[N] extends InputRecipe<infer K> ? Tensor<K> : never };

type CaseOptions<I extends Recipes> = Omit<Case, "inputs" | "program" | "sizes" | "gradients"> & {
  readonly inputs: I;
  readonly program: (inputs: Traced<I>) => AnyTensor | Results;
  readonly sizes?: readonly Sizes[];
  readonly gradients?: readonly (keyof I & string)[];
};

/** Declares a case; the program's parameters get the kinds of the recipes. */
export function testCase<const I extends Recipes>(options: CaseOptions<I>): Case {
  // The harness traces the program with exactly these inputs.
  return { ...options, program: options.program as unknown as Program, sizes: options.sizes ?? [{}] };
}

type Specs = { readonly [name: string]: TensorSpec };
type TracedSpecs<I extends Specs> = { readonly [N in keyof I]: Tensor<KindOfSpec<I[N]>> };

/** Declares a use that must be refused. */
export function refusal<const I extends Specs>(
  options: Omit<Refusal, "inputs" | "program"> & {
    readonly inputs: I;
    readonly program: (inputs: TracedSpecs<I>) => AnyTensor | Results;
  },
): Refusal {
  return { ...options, program: options.program as unknown as Program };
}

/** Puts the cases of one operation together. */
export function casesOf(op: string, cases: readonly Case[], refusals: readonly Refusal[] = []): OpCases {
  return { op, cases, refusals };
}

export type FloatDType = DTypeOfKind<"float">;

/** A spec of any float dtype. */
export function floatSpec(dtype: FloatDType, shape: readonly DimLike[]): TensorSpec<"float"> {
  return { dtype, shape: f32(...shape).shape };
}

/** Uniform numbers from `low` (default -1) to `high` (default 1), with `special` ones at the first places. */
export function floats(
  shape: readonly DimLike[],
  options: {
    readonly low?: number;
    readonly high?: number;
    readonly dtype?: FloatDType;
    readonly special?: readonly number[];
  } = {},
): InputRecipe<"float"> {
  const { low = -1, high = 1, dtype = "float32", special = [] } = options;
  return {
    spec: floatSpec(dtype, shape),
    fill: (stream, count) =>
      Float64Array.from({ length: count }, (_, index) => special[index] ?? low + (high - low) * stream.uniform(index)),
  };
}

/** Numbers from a normal distribution. */
export function normals(
  shape: readonly DimLike[],
  options: { readonly mean?: number; readonly deviation?: number; readonly dtype?: FloatDType } = {},
): InputRecipe<"float"> {
  return {
    spec: floatSpec(options.dtype ?? "float32", shape),
    fill: (stream, count) => stream.normal(count, options),
  };
}

/** Numbers between `near` and `far` from zero, of either sign: away from the kinks and poles at zero. */
export function awayFromZero(
  shape: readonly DimLike[],
  options: { readonly near?: number; readonly far?: number; readonly dtype?: FloatDType } = {},
): InputRecipe<"float"> {
  const { near = 0.25, far = 2, dtype = "float32" } = options;
  return {
    spec: floatSpec(dtype, shape),
    fill: (stream, count) =>
      Float64Array.from({ length: count }, (_, index) => {
        const size = near + (far - near) * stream.uniform(2 * index);
        return stream.uniform(2 * index + 1) < 0.5 ? -size : size;
      }),
  };
}

/** Numbers that are all at least `gap` apart, in random order: no two compete for a maximum. */
export function distinct(
  shape: readonly DimLike[],
  options: { readonly gap?: number; readonly dtype?: FloatDType } = {},
): InputRecipe<"float"> {
  const { gap = 0.01, dtype = "float32" } = options;
  return {
    spec: floatSpec(dtype, shape),
    fill(stream, count) {
      const order = Array.from({ length: count }, (_, index) => [stream.uniform(index), index] as const);
      order.sort(([a], [b]) => a - b);
      return order.map(([, rank]) => (rank - count / 2) * gap);
    },
  };
}

/** Whole numbers from `low` (default 0) to below `high`. */
export function integers(
  shape: readonly DimLike[],
  options: { readonly low?: number; readonly high: number },
): InputRecipe<"int"> {
  const { low = 0, high } = options;
  return {
    spec: { dtype: "int32", shape: f32(...shape).shape },
    fill: (stream, count) => Int32Array.from({ length: count }, (_, index) => low + stream.below(high - low, index)),
  };
}

/** Truth values, each with the same chance. */
export function booleans(shape: readonly DimLike[]): InputRecipe<"bool"> {
  return {
    spec: { dtype: "bool", shape: f32(...shape).shape },
    fill: (stream, count) => Uint8Array.from({ length: count }, (_, index) => stream.below(2, index)),
  };
}

/** These very elements, repeated until the input is full. */
export function given<const S extends TensorSpec>(spec: S, elements: readonly number[]): InputRecipe<KindOfSpec<S>> {
  const recipe: InputRecipe = {
    spec,
    fill: (_stream, count) =>
      Float64Array.from({ length: count }, (_, index) => elements[index % elements.length] ?? 0),
  };
  return recipe as unknown as InputRecipe<KindOfSpec<S>>;
}

/** Numbers that float32 code gets wrong: not numbers, infinities, zeros, the smallest and largest, and plain ones. */
export const hostile = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  0,
  -0,
  2 ** -149,
  -(2 ** -149),
  2 ** -126,
  1e-20,
  1e20,
  3.4028234663852886e38,
  -3.4028234663852886e38,
  1,
  -1,
  0.5,
];

/** Hostile numbers in order, repeated until the input is full. */
export function hostileFloats(shape: readonly DimLike[]): InputRecipe<"float"> {
  return given(floatSpec("float32", shape), hostile);
}

/** Widths that floats come in, apart from float32. */
export const otherFloats = ["float64", "float16", "bfloat16"] as const satisfies readonly DType[];
