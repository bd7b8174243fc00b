import { describe, expect, test } from "vitest";
import { type Dim, dim, elementsOf, sameShape, shapeOf, shapeText, sizeOf, sizesOf } from "./dim.ts";
import { GraphError, ShapeError } from "./errors.ts";
import { RandomStream } from "./random.ts";

describe("normal form", () => {
  test.each([
    [dim(0), "0"],
    [dim(-0), "0"],
    [dim(7), "7"],
    [dim(-7), "-7"],
    [dim("T"), "T"],
    [dim("P").plus("T"), "P + T"],
    [dim("T").plus("P"), "P + T"],
    [dim("T").plus("T"), "2*T"],
    [dim("T").minus("T"), "0"],
    [dim("T").minus(1), "T - 1"],
    [dim(1).minus("T"), "-T + 1"],
    [dim("T").times(-3), "-3*T"],
    [dim("T").times("B"), "B*T"],
    [dim("B").times("T").times("B"), "B*B*T"],
    [dim("T").times(0), "0"],
    [dim("B").plus(1).times(dim("B").minus(1)), "B*B - 1"],
    [dim("T").plus(2).times(dim("P").plus(3)), "2*P + P*T + 3*T + 6"],
    [dim("T").ceilDiv(64).times("B"), "B*ceilDiv(T, 64)"],
  ])("%s", (size, text) => {
    expect(String(size)).toBe(text);
    expect(size.text).toBe(text);
  });

  test("equal sizes are equal however they were made", () => {
    const a = dim("T").plus("P").times("B").minus(dim("B").times("T"));
    expect(a.equals(dim("P").times("B"))).toBe(true);
    expect(a.equals(dim("P"))).toBe(false);
    expect(dim(3).equals(3)).toBe(true);
    expect(dim("T").equals("T")).toBe(true);
  });

  test("a size without symbols has a value", () => {
    expect(dim(5).value).toBe(5);
    expect(dim(0).value).toBe(0);
    expect(dim("T").minus("T").plus(2).value).toBe(2);
    expect(dim("T").value).toBeUndefined();
    expect(dim("T").plus(1).value).toBeUndefined();
  });

  test("symbols are those that are left, those inside quotients too", () => {
    expect([...dim("P").plus("T").minus("P").symbols]).toEqual(["T"]);
    expect([...dim("P").plus("T").ceilDiv(3).times("B").symbols].sort()).toEqual(["B", "P", "T"]);
    expect([...dim(4).symbols]).toEqual([]);
  });

  test("what is not a size is refused", () => {
    expect(() => dim("2T")).toThrow(
      new GraphError(
        'dim: expected a whole number or a symbol such as "T", got "2T"; write arithmetic as dim("P").plus("T")',
      ),
    );
    expect(() => dim("P + T")).toThrow(GraphError);
    expect(() => dim("")).toThrow(GraphError);
    expect(() => dim(1.5)).toThrow("dim: expected a whole number, got 1.5");
    expect(() => dim(Number.NaN)).toThrow("got NaN");
    expect(() => dim(null as unknown as string)).toThrow('got "null"');
  });

  test("sizes that numbers cannot hold are refused instead of rounded", () => {
    const large = dim(2 ** 30);
    expect(() => large.times(large)).toThrow("dim: a size is too large to be exact, got 1152921504606847000");
    expect(() =>
      dim("T")
        .times(2 ** 52)
        .plus(dim("T").times(2 ** 52)),
    ).toThrow("too large to be exact");
  });
});

describe("ceilDiv", () => {
  test.each([
    [dim(7).ceilDiv(4), "2"],
    [dim(8).ceilDiv(4), "2"],
    [dim(0).ceilDiv(4), "0"],
    [dim(-7).ceilDiv(4), "-1"],
    [dim("T").ceilDiv(1), "T"],
    [dim("T").ceilDiv(64), "ceilDiv(T, 64)"],
    [dim("T").times(64).ceilDiv(64), "T"],
    [dim("T").times(64).plus(3).ceilDiv(64), "T + 1"],
    [dim("T").times(65).ceilDiv(64), "T + ceilDiv(T, 64)"],
    [dim("T").plus(65).ceilDiv(64), "ceilDiv(T + 1, 64) + 1"],
    [dim("T").minus(1).ceilDiv(64), "ceilDiv(T + 63, 64) - 1"],
    [dim("C").minus("T").ceilDiv(4), "-T + ceilDiv(C + 3*T, 4)"],
    [dim("T").times(6).ceilDiv(4), "T + ceilDiv(T, 2)"],
    [dim("T").times(2).plus(1).ceilDiv(4), "ceilDiv(T + 1, 2)"],
    [dim("T").ceilDiv(4).ceilDiv(16), "ceilDiv(T, 64)"],
    [dim("T").ceilDiv(4).plus(3).ceilDiv(16), "ceilDiv(T + 12, 64)"],
    [dim("T").ceilDiv(4).plus("P").ceilDiv(16), "ceilDiv(P + ceilDiv(T, 4), 16)"],
  ])("%s", (size, text) => {
    expect(String(size)).toBe(text);
  });

  test("sizes that are equal for all lengths have one form", () => {
    expect(dim("T").plus(64).ceilDiv(64).equals(dim("T").ceilDiv(64).plus(1))).toBe(true);
    expect(dim("T").minus(1).ceilDiv(8).equals(dim("T").plus(7).ceilDiv(8).minus(1))).toBe(true);
    expect(dim("T").times(3).ceilDiv(6).equals(dim("T").ceilDiv(2))).toBe(true);
  });

  test("the divisor is a whole number of at least 1", () => {
    for (const by of [0, -1, 1.5, Number.NaN]) {
      expect(() => dim("T").ceilDiv(by)).toThrow(new GraphError(`ceilDiv: expected a divisor >= 1, got ${by}`));
    }
  });
});

describe("bind", () => {
  test("replaces the symbols that are named and leaves the others", () => {
    const size = dim("B").times(dim("T").plus("P").ceilDiv(8));
    expect(String(size.bind({ T: 9 }))).toBe("B + B*ceilDiv(P + 1, 8)");
    expect(size.bind({ T: 9, P: 0, B: 3 }).value).toBe(6);
    expect(size.bind({}).equals(size)).toBe(true);
    expect(String(dim("T").bind({ T: dim("P").plus(1) }))).toBe("P + 1");
  });

  test("a symbol may be called like a member of every object", () => {
    expect(String(dim("constructor").plus("toString").bind({ T: 1 }))).toBe("constructor + toString");
    expect(dim("constructor").bind({ constructor: 4 }).value).toBe(4);
  });
});

test("fold computes the same number as bind, by the caller's arithmetic", () => {
  const size = dim("B").plus(2).times(dim("T").plus(5).ceilDiv(4)).minus("T");
  const symbols: Record<string, number> = { B: 3, T: 10 };
  const folded = size.fold<number>({
    constant: (value) => value,
    symbol: (name) => symbols[name] ?? Number.NaN,
    plus: (a, b) => a + b,
    times: (a, b) => a * b,
    ceilDiv: (a, by) => Math.ceil(a / by),
  });
  expect(folded).toBe(size.bind(symbols).value);
  expect(folded).toBe(5 * 4 - 10);
});

describe("arithmetic, at random", () => {
  type Both = { readonly size: Dim; readonly number: number };

  /** The same random expression over symbols and over the numbers that they are bound to. */
  function expression(draw: () => number, symbols: Readonly<Record<string, number>>, depth: number): Both {
    const names = Object.keys(symbols);
    if (depth === 0 || draw() < 0.15) {
      const name = names[Math.floor(draw() * names.length)] ?? "T";
      const number = Math.floor(draw() * 40) - 10;
      return draw() < 0.6 ? { size: dim(name), number: symbols[name] ?? 0 } : { size: dim(number), number };
    }
    const a = expression(draw, symbols, depth - 1);
    const choice = draw();
    if (choice < 0.3) {
      const by = 1 + Math.floor(draw() * 12);
      return { size: a.size.ceilDiv(by), number: Math.ceil(a.number / by) };
    }
    const b = expression(draw, symbols, depth - 1);
    if (choice < 0.6) return { size: a.size.plus(b.size), number: a.number + b.number };
    if (choice < 0.8) return { size: a.size.minus(b.size), number: a.number - b.number };
    return { size: a.size.times(b.size), number: a.number * b.number };
  }

  test("bound after is what is computed with numbers; bound step by step, and folded with truncating division too", () => {
    for (let seed = 0; seed < 400; seed++) {
      const random = new RandomStream(seed, "dim");
      let index = 0;
      const draw = () => random.uniform(index++);
      const symbols = { B: Math.floor(draw() * 9), P: Math.floor(draw() * 30), T: Math.floor(draw() * 300) };
      const { size, number } = expression(draw, symbols, 4);
      const label = `seed ${seed}: ${size} at ${JSON.stringify(symbols)}`;
      expect(size.bind(symbols).value, label).toBe(number + 0);
      const { T, ...others } = symbols;
      expect(size.bind({ T }).bind(others).value, label).toBe(number + 0);
      // Runtimes divide whole numbers towards zero, so what is inside a quotient must not be negative.
      const truncated = size.fold<number>({
        constant: (value) => value,
        symbol: (name) => symbols[name as keyof typeof symbols],
        plus: (a, b) => a + b,
        times: (a, b) => a * b,
        ceilDiv: (a, by) => Math.trunc((a + by - 1) / by),
      });
      expect(truncated + 0, label).toBe(number + 0);
    }
  });

  test("the form does not depend on the order of operations", () => {
    for (let seed = 0; seed < 200; seed++) {
      const random = new RandomStream(seed, "order");
      let index = 0;
      const draw = () => random.uniform(index++);
      const part = () => expression(draw, { B: 1, P: 2, T: 3 }, 2).size;
      const [a, b, c] = [part(), part(), part()];
      expect(String(a.plus(b).plus(c))).toBe(String(c.plus(b.plus(a))));
      expect(String(a.times(b.plus(c)))).toBe(String(c.times(a).plus(b.times(a))));
      expect(String(a.plus(b.times(7)).ceilDiv(7))).toBe(String(a.ceilDiv(7).plus(b)));
    }
  });
});

describe("shapes", () => {
  test("are made of numbers, symbols and sizes, and print without spaces between axes", () => {
    const shape = shapeOf(["B", 8, dim("P").plus("T")]);
    expect(shapeText(shape)).toBe("[B,8,P + T]");
    expect(sameShape(shape, shapeOf(["B", 8, dim("T").plus("P")]))).toBe(true);
    expect(sameShape(shape, shapeOf(["B", 8]))).toBe(false);
    expect(sameShape(shape, shapeOf(["B", 9, dim("P").plus("T")]))).toBe(false);
  });

  test("count their elements", () => {
    expect(elementsOf([]).value).toBe(1);
    expect(elementsOf(shapeOf([2, 0, 3])).value).toBe(0);
    expect(String(elementsOf(shapeOf(["B", 4, "T"])))).toBe("4*B*T");
  });

  test("have no negative sizes", () => {
    expect(() => shapeOf([2, -1])).toThrow(new ShapeError("sizes must be >= 0, got [2,-1]"));
  });

  test("are numbers once bound", () => {
    expect(sizesOf(shapeOf([2, 3]))).toEqual([2, 3]);
    expect(() => sizeOf(dim("T").plus(1))).toThrow(
      new GraphError("size T + 1 is not bound; call graph.bind({ T: ... }) first"),
    );
    expect(() => sizeOf(dim(-2))).toThrow(new GraphError("size is negative: -2"));
  });
});
