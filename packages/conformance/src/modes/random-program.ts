// Random programs: several operations in a row on random shapes, some of them used wrongly on purpose. A seed always
// gives the same program.

import {
  type AnyTensor,
  abs,
  add,
  and,
  argmax,
  blockCumulativeSum,
  broadcastTo,
  cast,
  chunk,
  concat,
  cos,
  cumulativePhase,
  cumulativeSum,
  type Dim,
  dim,
  dimSize,
  div,
  elementsOf,
  equal,
  exp,
  finite,
  floor,
  floorDiv,
  type Graph,
  gather,
  iota,
  kindOf,
  less,
  lessEqual,
  linearScan,
  log,
  log1p,
  logSoftmax,
  logSumExp,
  matmul,
  max,
  maximum,
  mean,
  minimum,
  mul,
  neg,
  not,
  or,
  pad,
  RandomStream,
  reshape,
  rmsNorm,
  rope,
  SisaError,
  scatterAdd,
  sigmoid,
  silu,
  sin,
  slice,
  softmax,
  softplus,
  sqrt,
  sub,
  sum,
  swiglu,
  type Tensor,
  takeRow,
  tanh,
  transpose,
  unchunk,
  where,
} from "@sisa/core";
import { booleans, type Case, floats, type InputRecipe, integers, type Sizes, testCase } from "../case.ts";
import { bindSizes, graphOf } from "../program.ts";

/** A value of the program so far. */
interface Item {
  readonly tensor: AnyTensor;
  /** True where every backend has the very same bits, so that comparisons and rounding agree. */
  readonly exact: boolean;
  /** No element is larger, so that nothing overflows by accident. */
  readonly bound: number;
}

interface FloatItem extends Item {
  readonly tensor: Tensor;
}

/** Draws from a stream, one number after another. */
class Dice {
  readonly #stream: RandomStream;
  #drawn = 0;

  constructor(seed: number, name: string) {
    this.#stream = new RandomStream(seed, name);
  }

  /** From 0 to below `count`. */
  below(count: number): number {
    return this.#stream.below(count, this.#drawn++);
  }

  chance(probability: number): boolean {
    return this.#stream.uniform(this.#drawn++) < probability;
  }

  /** @throws Error where there is nothing to pick from; the step is then left out */
  pick<T>(list: readonly T[]): T {
    const value = list[this.below(list.length)];
    if (value === undefined) throw new NothingToPick();
    return value;
  }
}

/** A step needs a value that the program does not have. */
class NothingToPick extends Error {}

/** Sizes at which programs run; the first is also what their growth is limited by. */
const sizes = [
  { B: 2, T: 5 },
  { B: 1, T: 1 },
  { B: 3, T: 9 },
];
const largestTensor = 3_000;
const largestBound = 50;
const steps = 14;

/** The case of a seed: inputs, and a program that is traced the same every time. */
export function randomCase(seed: number): Case {
  const dice = new Dice(seed, "fuzz inputs");
  const size = (): number | string => dice.pick(["B", "T", "T", 1, 2, 3, 4, 6]);
  const shape = (rank: number) => Array.from({ length: rank }, size);
  const inputs: Record<string, InputRecipe> = {
    x: floats(["B", "T", dice.pick([2, 3, 4])], { low: -2, high: 2 }),
    y: floats(shape(dice.below(4)), { low: -2, high: 2 }),
    z: floats(shape(1 + dice.below(3)), { low: -2, high: 2 }),
    ids: integers(dice.chance(0.5) ? ["B"] : ["B", "T"], { high: 2 }),
    flags: booleans(shape(1 + dice.below(2))),
  };
  const test = testCase({ name: `seed ${seed}`, inputs, program: (tensors) => randomProgram(seed, tensors), sizes });
  // Some programs do not fit some sizes, which is found before any backend takes part.
  const graph = graphOf(test);
  return { ...test, sizes: sizes.filter((entry) => fits(graph, entry)) };
}

function fits(graph: Graph, entry: Sizes): boolean {
  try {
    bindSizes(graph, entry);
    return true;
  } catch (error) {
    if (SisaError.isInstance(error)) return false;
    throw error;
  }
}

/** Errors of operations must come from this project and name an operation first. */
export class BadError extends Error {}

function randomProgram(seed: number, inputs: { readonly [name: string]: AnyTensor }): Record<string, AnyTensor> {
  const dice = new Dice(seed, "fuzz program");
  const items: Item[] = Object.values(inputs).map((tensor) => ({
    tensor,
    exact: true,
    bound: 2,
  }));
  const program = new ProgramBuilder(dice, items);
  for (let step = 0; step < steps; step++) {
    try {
      program.step();
    } catch (error) {
      if (error instanceof NothingToPick) continue;
      const named = SisaError.isInstance(error) && /^[a-z][A-Za-z0-9]*: \S/.test(error.message);
      if (!named) throw new BadError(`a wrong use gave ${String(error)}`, { cause: error });
    }
  }
  const read = new Set(items.flatMap(({ tensor }) => Object.values(tensor.node.inputs)));
  const results = items.map(({ tensor }) => tensor).filter((tensor) => !read.has(tensor));
  return Object.fromEntries(results.map((tensor, index) => [`out${index}`, tensor]));
}

class ProgramBuilder {
  readonly #dice: Dice;
  readonly #items: Item[];

  constructor(dice: Dice, items: Item[]) {
    this.#dice = dice;
    this.#items = items;
  }

  step(): void {
    const item = this.#dice.pick(this.#makers)();
    const { B, T } = { B: 2, T: 5 };
    const count = elementsOf(item.tensor.shape).bind({ B, T }).value ?? Number.POSITIVE_INFINITY;
    if (count <= largestTensor) this.#items.push(item);
  }

  #pickItem(accept: (item: Item) => boolean): Item {
    // Late values more often than early ones, so that programs grow deep.
    const fitting = this.#items.filter(accept);
    return this.#dice.chance(0.5) ? this.#dice.pick(fitting.slice(-3)) : this.#dice.pick(fitting);
  }

  #float(accept: (item: Item) => boolean = () => true): FloatItem {
    const item = this.#pickItem((candidate) => kindOf(candidate.tensor.dtype) === "float" && accept(candidate));
    return item as FloatItem;
  }

  #int(): Tensor<"int"> {
    return this.#pickItem(({ tensor }) => tensor.dtype === "int32").tensor as Tensor<"int">;
  }

  #bool(): Tensor<"bool"> {
    return this.#pickItem(({ tensor }) => tensor.dtype === "bool").tensor as Tensor<"bool">;
  }

  /** An axis that exists, or seldom one that does not. */
  #axis(rank: number): number {
    if (this.#dice.chance(0.04)) return this.#dice.pick([rank, -rank - 1, 0.5]);
    if (rank === 0) throw new NothingToPick();
    return this.#dice.below(2 * rank) - rank;
  }

  #axes(rank: number): number[] | undefined {
    if (this.#dice.chance(0.3)) return undefined;
    return Array.from({ length: 1 + this.#dice.below(2) }, () => this.#axis(rank));
  }

  /** A small whole number, or seldom one that is wrong almost everywhere. */
  #count(): number {
    return this.#dice.chance(0.04) ? this.#dice.pick([-1, 0, 99, 0.5]) : 1 + this.#dice.below(3);
  }

  /** Values that are brought back where they have grown large. */
  #result(tensor: AnyTensor, bound: number, exact = false): Item {
    if (bound <= largestBound) return { tensor, exact, bound };
    return { tensor: tanh(tensor as Tensor), exact: false, bound: 1 };
  }

  /** An operation on one float tensor. `bound` says how large its elements become. */
  #unary(apply: (x: Tensor) => Tensor, bound: (x: number) => number): () => Item {
    return () => {
      const { tensor, bound: before } = this.#float();
      return this.#result(apply(tensor), bound(before));
    };
  }

  #binary(apply: (a: Tensor, b: Tensor) => Tensor, bound: (a: number, b: number) => number): () => Item {
    return () => {
      const a = this.#float();
      const b = this.#float();
      return this.#result(apply(a.tensor, b.tensor), bound(a.bound, b.bound));
    };
  }

  /** An operation that only moves elements, of any kind. */
  #move(apply: (x: AnyTensor) => AnyTensor): () => Item {
    return () => {
      const { tensor, bound, exact } = this.#pickItem(() => true);
      return { tensor: apply(tensor), bound, exact };
    };
  }

  #compare(apply: (a: Tensor, b: Tensor) => Tensor<"bool">): () => Item {
    return () => {
      const [a, b] = [this.#float(({ exact }) => exact), this.#float(({ exact }) => exact)];
      return this.#result(apply(a.tensor, b.tensor), 1, true);
    };
  }

  #splitAxis(shape: readonly Dim[]): Dim[] {
    const axis = this.#dice.below(Math.max(shape.length, 1));
    const size = shape[axis]?.value;
    if (this.#dice.chance(0.5) && size !== undefined && size % 2 === 0 && size > 0) {
      return shape.toSpliced(axis, 1, dim(2), dim(size / 2));
    }
    const next = shape[axis + 1];
    const merged = next ? shape.toSpliced(axis, 2, (shape[axis] ?? dim(1)).times(next)) : [...shape, dim(1)];
    return this.#dice.chance(0.04) ? [...merged, dim(2)] : [...merged];
  }

  #permutation(rank: number): number[] {
    const rest = Array.from({ length: rank }, (_, axis) => axis);
    const order: number[] = [];
    while (rest.length > 0) order.push(...rest.splice(this.#dice.below(rest.length), 1));
    return this.#dice.chance(0.04) ? [...order, 0] : order;
  }

  readonly #makers: readonly (() => Item)[] = [
    this.#unary(abs, (x) => x),
    this.#unary(neg, (x) => x),
    this.#unary(tanh, () => 1),
    this.#unary(sigmoid, () => 1),
    this.#unary(silu, (x) => x),
    this.#unary(softplus, (x) => x + 1),
    this.#unary(sin, () => 1),
    this.#unary(cos, () => 1),
    this.#unary(
      (x) => exp(minimum(x, 2)),
      () => 8,
    ),
    this.#unary(
      (x) => log(add(abs(x), 0.5)),
      (x) => 1 + x,
    ),
    this.#unary(
      (x) => log1p(abs(x)),
      (x) => x,
    ),
    this.#unary(
      (x) => sqrt(add(abs(x), 0.5)),
      (x) => 1 + x,
    ),
    this.#unary(
      (x) => sin(cumulativePhase({ x })),
      () => 1,
    ),
    this.#unary(softmax, () => 1),
    this.#unary(logSoftmax, (x) => 2 * x + 6),
    this.#unary(logSumExp, (x) => x + 6),
    this.#binary(add, (a, b) => a + b),
    this.#binary(sub, (a, b) => a + b),
    this.#binary(mul, (a, b) => a * b),
    this.#binary(
      (a, b) => div(a, add(abs(b), 0.5)),
      (a) => 2 * a,
    ),
    this.#binary(maximum, Math.max),
    this.#binary(minimum, Math.max),
    this.#binary(swiglu, (a, b) => a * b),
    this.#binary(
      (a, b) => matmul(a, b, { transposeA: this.#dice.chance(0.5), transposeB: this.#dice.chance(0.5) }),
      (a, b) => 10 * a * b,
    ),
    this.#binary(
      (a, b) => linearScan({ a: sigmoid(a), b }, { reverse: this.#dice.chance(0.5) }),
      (_, b) => 10 * b,
    ),
    () => {
      const { tensor, bound } = this.#float();
      const axes = this.#axes(tensor.shape.length);
      const keepDims = this.#dice.chance(0.5);
      const options = axes === undefined ? { keepDims } : { axes, keepDims };
      const reduce = this.#dice.pick([sum, mean, max]);
      return this.#result(reduce(tensor, options), reduce === sum ? 30 * bound : bound);
    },
    () => {
      const { tensor, bound } = this.#float();
      const options = { axis: this.#axis(tensor.shape.length), exclusive: this.#dice.chance(0.5) };
      return this.#result(cumulativeSum(tensor, { ...options, reverse: this.#dice.chance(0.5) }), 10 * bound);
    },
    () => {
      const { tensor, bound } = this.#float();
      return this.#result(blockCumulativeSum({ x: tensor }, { size: this.#count() }), 4 * bound);
    },
    () => {
      const { tensor } = this.#float();
      const width = tensor.shape.at(-1)?.value ?? 1;
      const weight = this.#float(({ tensor: { shape } }) => shape.length === 1 && shape[0]?.value === width);
      return this.#result(rmsNorm(tensor, weight.tensor, { epsilon: 0.1 }), 3 * weight.bound);
    },
    () => {
      const { tensor, bound } = this.#float();
      const half = slice(tensor, { axis: -1, end: Math.floor((tensor.shape.at(-1)?.value ?? 0) / 2) });
      return this.#result(rope(tensor, cos(half), sin(half)), 2 * bound);
    },
    () => {
      const a = this.#float();
      const b = this.#float();
      return this.#result(where(this.#bool(), a.tensor, b.tensor), Math.max(a.bound, b.bound), a.exact && b.exact);
    },
    () => {
      const table = this.#float();
      return this.#result(gather(table.tensor, minimum(this.#int(), 0) as Tensor<"int">), table.bound, table.exact);
    },
    () => {
      const { tensor, bound } = this.#float();
      const ids = maximum(minimum(this.#int(), 1), 0) as Tensor<"int">;
      return this.#result(scatterAdd(tensor, ids, { rows: 1 + this.#count() }), 30 * bound);
    },
    () => {
      const { tensor, bound, exact } = this.#float();
      return this.#result(takeRow(tensor, mul<"int">(this.#int(), 0)), bound, exact);
    },
    this.#compare(less),
    this.#compare(lessEqual),
    this.#compare(equal),
    () => this.#result(finite(this.#float().tensor), 1, true),
    // Of whole numbers, so that programs with it can still be differentiated.
    () => this.#result(floor(mul(cast(this.#int(), "float32") as Tensor, 0.5)), largestBound, true),
    () => this.#result(argmax(this.#float(({ exact }) => exact).tensor), largestBound, true),
    () => this.#result(floorDiv(this.#int(), 2), largestBound, true),
    () => this.#result(add<"int">(this.#int(), this.#int()), largestBound, true),
    () => this.#result(dimSize(this.#pickItem(() => true).tensor, 0), largestBound, true),
    () => this.#result(iota(this.#dice.pick([dim("T"), dim("B").times("T"), dim(3)])), largestBound, true),
    () => this.#result(and(this.#bool(), this.#bool()), 1, true),
    () => this.#result(or(this.#bool(), not(this.#bool())), 1, true),
    () =>
      this.#result(
        cast(this.#pickItem(({ tensor }) => tensor.dtype !== "float32").tensor, "float32"),
        largestBound,
        true,
      ),
    () =>
      this.#result(
        cast(this.#float(({ exact }) => exact).tensor, this.#dice.pick(["int32", "bool"])),
        largestBound,
        true,
      ),
    this.#move((x) => transpose(x, this.#permutation(x.shape.length))),
    this.#move((x) => reshape(x, this.#splitAxis(x.shape))),
    this.#move((x) =>
      slice(x, {
        axis: this.#axis(x.shape.length),
        start: this.#dice.chance(0.7) ? 0 : this.#count() - 1,
        end: this.#count(),
      }),
    ),
    this.#move((x) => pad(x, { axis: this.#axis(x.shape.length), before: this.#count(), after: this.#count() - 1 })),
    this.#move((x) => chunk(x, { axis: this.#axis(x.shape.length), size: this.#count() })),
    this.#move((x) => {
      const axis = Math.floor(Math.abs(this.#axis(x.shape.length)));
      const length = x.shape[axis] ?? dim(1);
      return unchunk(chunk(x, { axis, size: 2 }), { axis, length });
    }),
    this.#move((x) => broadcastTo(x, [this.#count(), ...x.shape])),
    () => {
      const parts = Array.from({ length: 2 + this.#dice.below(2) }, () => this.#float());
      const tensors = this.#dice.chance(0.5)
        ? parts.map(() => parts[0]?.tensor ?? parts[0])
        : parts.map((part) => part.tensor);
      return this.#result(
        concat(tensors as Tensor[], { axis: this.#axis(parts[0]?.tensor.shape.length ?? 0) }),
        Math.max(...parts.map(({ bound }) => bound)),
        parts.every(({ exact }) => exact),
      );
    },
    // A kind that the operation does not take.
    () => this.#result(tanh(this.#int() as unknown as Tensor), 1),
  ];
}
