// What a layer is: declared parameters and a forward written in operations. Parameters are one flat record at every
// level; a parent mounts its children under a prefix and hands each its own part.

import { GraphError } from "../errors.ts";
import type { Tensor } from "../graph/tensor.ts";
import { RandomStream } from "../random.ts";
import type { TensorSpec } from "../spec.ts";
import { f32 } from "../spec.ts";

/** How a parameter gets its first values. */
export type Initializer =
  | {
      readonly kind: "normal";
      /** Standard deviation, around 0. */
      readonly deviation: number;
    }
  | {
      readonly kind: "constant";
      /** Of every element. */
      readonly value: number;
    }
  | {
      readonly kind: "uniform";
      /** The least number that is drawn. */
      readonly low: number;
      /** What every number that is drawn stays below. */
      readonly high: number;
      /** What becomes of each; default the number itself. */
      transform?(value: number): number;
    }
  | {
      readonly kind: "placed";
      /** @param index place of the element, row major */
      at(index: number): number;
    };

/** A weight: its sizes, its first values, and how the optimizer treats it. */
export interface Parameter {
  /** Sizes of the axes. */
  readonly shape: readonly number[];
  /** Where its first values come from; the seed is given to `initialize`. */
  readonly initializer: Initializer;
  /** Factor of the learning rate. Default 1. */
  readonly learningRateFactor?: number;
  /** False where weight decay must leave it alone. Default true. */
  readonly weightDecay?: boolean;
}

/** Weights by name, in the order in which files and optimizers take them. */
export type Parameters = { readonly [name: string]: Parameter };

/** Something with weights. Its `forward`, in operations, takes a tensor for each of them. */
export interface Layer {
  /** Declared once, when the layer is made. */
  readonly parameters: Parameters;
}

/** What a layer's forward gets: a tensor for each of its parameters, under its own names. */
export type ParametersOf<L extends Layer> = { readonly [N in keyof L["parameters"]]: Tensor };

/** A weight of this shape, normally distributed around 0 with this standard deviation. */
export function normal(shape: readonly number[], deviation: number): Parameter {
  return { shape, initializer: { kind: "normal", deviation } };
}

/** A weight of this shape, all elements one value. */
export function filled(shape: readonly number[], value: number): Parameter {
  return { shape, initializer: { kind: "constant", value } };
}

/**
 * A weight of this shape, spread evenly within 1 / sqrt(inputs) of 0, as PyTorch fills linear layers and convolutions.
 * @param inputs that one element of the result is summed from
 */
export function uniformFor(shape: readonly number[], inputs: number): Parameter {
  const high = inputs ** -0.5;
  return { shape, initializer: { kind: "uniform", low: -high, high } };
}

/** A child's parameters under a prefix: `mount("layers.0.", child)`. */
export function mount(prefix: string, child: Layer): Parameters {
  return Object.fromEntries(Object.entries(child.parameters).map(([name, parameter]) => [prefix + name, parameter]));
}

/**
 * A child's own part of its parent's tensors.
 * @throws GraphError naming the first that is missing
 */
export function parametersUnder<L extends Layer>(
  tensors: { readonly [name: string]: Tensor },
  prefix: string,
  child: L,
): ParametersOf<L> {
  const own = Object.keys(child.parameters).map((name) => {
    const tensor = tensors[prefix + name];
    if (tensor === undefined) throw new GraphError(`parameter "${prefix}${name}" is missing`);
    return [name, tensor];
  });
  return Object.fromEntries(own);
}

/** Specs of all parameters, float32, for tracing. */
export function parameterSpecs(layer: Layer): { readonly [name: string]: TensorSpec<"float"> } {
  return Object.fromEntries(Object.entries(layer.parameters).map(([name, { shape }]) => [name, f32(...shape)]));
}

/** Number of elements of all parameters. */
export function parameterCount(layer: Layer): number {
  return Object.values(layer.parameters).reduce((total, { shape }) => total + shape.reduce((a, b) => a * b, 1), 0);
}

/**
 * First values of all parameters, row major. Each draws from a stream of its own name, so that they do not depend on
 * each other.
 * @param seed whole number; its lower 32 bits count
 */
export function initialize(layer: Layer, seed: number): { [name: string]: Float32Array } {
  return Object.fromEntries(
    Object.entries(layer.parameters).map(([name, { shape, initializer }]) => {
      const count = shape.reduce((a, b) => a * b, 1);
      return [name, firstValues(initializer, count, new RandomStream(seed, name))];
    }),
  );
}

function firstValues(initializer: Initializer, count: number, random: RandomStream): Float32Array {
  switch (initializer.kind) {
    case "normal":
      return random.normal(count, { deviation: initializer.deviation });
    case "constant":
      return new Float32Array(count).fill(initializer.value);
    case "uniform": {
      const { low, high, transform = (value) => value } = initializer;
      return Float32Array.from({ length: count }, (_, index) => transform(low + (high - low) * random.uniform(index)));
    }
    case "placed":
      return Float32Array.from({ length: count }, (_, index) => initializer.at(index));
  }
}
