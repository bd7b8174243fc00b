import { describe, expect, test } from "vitest";
import type { Backend, BackendLimits } from "../backend.ts";
import { ConfigError, DataError } from "../errors.ts";
import { inPrecision } from "../graph/precision.ts";
import { initialize } from "../layers/layer.ts";
import { RandomStream } from "../random.ts";
import { reference } from "../reference/backend.ts";
import { evaluate } from "../reference/evaluate.ts";
import { i32 } from "../spec.ts";
import type { ModelConfig } from "./config.ts";
import { Decoder } from "./decoder.ts";
import { languageModel } from "./language-model.ts";

const vocabularySize = 19;
const length = 150;

/** Small sizes for kinds whose defaults are too large here. */
const mixerSettings = {
  mamba: { kind: "mamba", normalize: true },
  mamba2: { kind: "mamba2", headWidth: 8 },
  mamba3: { kind: "mamba3", headWidth: 8 },
  mimo: { kind: "mamba3", headWidth: 8, rank: 3 },
  mimoHeavy: { kind: "mamba3", headWidth: 8, rank: 2, groups: 2, decay: "heavy-tail", outputNorm: true },
  narrow: { kind: "sisa", stateWidth: 2 },
  wide: { kind: "sisa", stateWidth: 10 },
  decayOnly: { kind: "sisa", rotation: false, positions: "none", longestHalfLife: 50 },
  rotationOnly: { kind: "sisa", decay: "none", stateWidth: 6, normalize: true },
  constantDecay: { kind: "sisa", decay: "constant" },
  sigmoid: { kind: "sisa", weights: "sigmoid" },
  fox: { kind: "attention", positions: "none", forget: true },
  foxPro: { kind: "attention", positions: "none", forget: true, queryKeyNorm: true, shift: true, outputGate: true },
  alibi: { kind: "attention", positions: "alibi" },
  local: { kind: "attention", window: 20, keyValueHeads: 1, keyWidth: 12 },
  localAgain: { kind: "attention", window: 20, keyValueHeads: 1, keyWidth: 12, reuseKeys: true },
} as const satisfies ModelConfig["mixerSettings"];

function tinyModel(mixers: readonly string[], change: Partial<ModelConfig> = {}) {
  const config = { vocabularySize, width: 16, heads: 2, feedForwardWidth: 12, stateWidth: 4, maximumLength: 200 };
  const shared = { form: "exact", ropeBase: 1e4, normEpsilon: 1e-6, mixerSettings } as const;
  const model = languageModel({ mixers, ...config, ...shared, ...change });
  const parameters = initialize(model, 5);
  // Weights of size 1, and a strong decay, so that every part of the cache matters.
  for (const [name, values] of Object.entries(parameters)) {
    if (name.endsWith("alpha_proj.bias")) values.fill(-1);
    else if (model.parameters[name]?.initializer.kind === "normal") values.set(values.map((value) => value * 12));
  }
  return { model, parameters };
}

/** Branches that are averaged, which must be equally wide inside. */
const meanWithMeta: Partial<ModelConfig> = {
  combination: "mean",
  metaTokens: 3,
  mixerSettings: { wide: { kind: "attention" }, inner: { kind: "mamba2", headWidth: 8, innerWidth: 16 } },
};

const routed: Partial<ModelConfig> = { feedForwards: ["routed", "none"], experts: { count: 3, perToken: 2 } };

const tokens = Array.from({ length }, (_, index) => new RandomStream(2, "tokens").below(vocabularySize, index));

/** Logits of every position from one full pass, in float64. */
function fullPass({ model, parameters }: ReturnType<typeof tinyModel>, ids: readonly number[]): Float64Array {
  const weights = Object.fromEntries(
    Object.entries(parameters).map(([name, values]) => [
      name,
      { shape: model.parameters[name]?.shape ?? [], data: Float64Array.from(values) },
    ]),
  );
  const inputs = { ids: { shape: [1, ids.length], data: Int32Array.from(ids) }, ...weights };
  return evaluate(model.logitsGraph().bind({ B: 1, T: ids.length }), inputs).logits?.data as Float64Array;
}

test("in bfloat16, tokens one by one give what a full pass gives, within roundings", async () => {
  const { model, parameters } = tinyModel(["sisa", "attention"]);
  const ids = tokens.slice(0, 70);
  const graph = inPrecision(model.logitsGraph(), "bfloat16").bind({ B: 1, T: ids.length });
  await using backend = reference();
  const full = await backend.compile(graph, { constants: parameters });
  const inputs = { ids: backend.tensor(i32(1, ids.length), Int32Array.from(ids)) };
  const wanted = await full.run(inputs as never).logits.read();
  await using decoder = await Decoder.create({ model, parameters, backend, capacity: 80, precision: "bfloat16" });
  let worst = 0;
  let largest = 0;
  for (let start = 0; start < ids.length; ) {
    const count = start === 0 ? 60 : 1;
    const logits = await decoder.append([ids.slice(start, start + count)], [start]);
    start += count;
    for (let v = 0; v < vocabularySize; v++) {
      const theirs = wanted[(start - 1) * vocabularySize + v] ?? 0;
      worst = Math.max(worst, Math.abs((logits[v] ?? Number.NaN) - theirs));
      largest = Math.max(largest, Math.abs(theirs));
    }
  }
  expect(worst / largest).toBeLessThan(0.02);
});

function difference(logits: Float32Array, row: number, full: Float64Array, position: number): number {
  let worst = 0;
  for (let v = 0; v < vocabularySize; v++) {
    const [ours, theirs] = [logits[row * vocabularySize + v], full[position * vocabularySize + v]];
    worst = Math.max(worst, Math.abs((ours ?? Number.NaN) - (theirs ?? Number.NaN)));
  }
  return worst;
}

/** The reference, saying that it takes bound graphs only and is a device, as GPU backends do; it notes runs and reads. */
function boundOnly(events: string[] = [], limits: Partial<BackendLimits> = {}): Backend {
  const backend = reference();
  const compile: Backend["compile"] = async (graph, options) => {
    const executable = await backend.compile(graph, options);
    return {
      run(inputs) {
        events.push("run");
        const outputs = executable.run(inputs);
        for (const [name, tensor] of Object.entries(outputs)) {
          const read = tensor.read.bind(tensor);
          tensor.read = () => {
            events.push(`read ${name}`);
            return read();
          };
        }
        return outputs;
      },
      close: () => executable.close(),
    };
  };
  return new Proxy(backend, {
    get(target, name) {
      if (name === "limits") return { ...target.limits, symbolicDims: false, hostMemory: false, ...limits };
      if (name === "compile") return compile;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

describe.each([
  ["sisa", ["sisa", "sisa"]],
  ["attention", ["attention", "attention"]],
  ["a mix", ["sisa", "attention"]],
  ["mamba2", ["mamba2", "mamba2"]],
  ["mamba3 of one rank and of several, by softplus and with a heavy tail", ["mamba3", "mimo", "mimoHeavy"]],
  ["mamba, with routed feed-forwards", ["mamba", "sisa"], routed],
  ["what the paper leaves open of sisa", ["decayOnly", "rotationOnly", "constantDecay"]],
  ["sisa with states of another width in every layer", ["narrow", "sisa", "wide"]],
  ["sisa with sigmoids", ["sigmoid", "sigmoid"]],
  ["fox", ["fox", "fox"]],
  ["fox pro", ["foxPro", "foxPro"]],
  ["alibi and a window", ["alibi", "local"]],
  ["reused keys", ["local", "mamba2+localAgain", "localAgain"]],
  ["mamba2 beside attention", ["mamba2+attention", "sisa"]],
  ["a mean of mamba2 and attention, after meta tokens", ["wide+inner", "attention"], meanWithMeta],
] as const)("cached decoding of %s equals the full pass", (_name, mixers, change: Partial<ModelConfig> = {}) => {
  const own = tinyModel(mixers, change);
  const full = fullPass(own, tokens);

  test.each([
    ["token by token", Array.from({ length: 70 }, () => 1)],
    ["in chunks across blocks of 64", [1, 5, 57, 1, 1, 62, 3, 20]],
    ["at once", [length]],
  ])("%s", async (_way, chunks) => {
    await using backend = reference();
    await using decoder = await Decoder.create({ ...own, backend });
    let position = 0;
    for (const size of chunks) {
      const logits = await decoder.append([tokens.slice(position, position + size)], [position]);
      position += size;
      expect(difference(logits, 0, full, position - 1)).toBeLessThan(1e-5);
    }
  });

  test("a prefix may be resumed where every position is kept, and what came after it is forgotten", async () => {
    await using backend = reference();
    await using decoder = await Decoder.create({ ...own, backend });
    await decoder.append([tokens.slice(0, 100)], [0]);
    const keepsAll = own.model.recurrentKinds.length === 0;
    if (!keepsAll) {
      await expect(decoder.append([[1]], [99])).rejects.toThrow(
        `row 0 holds 100 tokens and cannot go on from 99: ${own.model.recurrentKinds} layers keep a state`,
      );
    }
    for (const prefix of keepsAll ? [99, 64, 63, 10, 0] : [0]) {
      const other = [...tokens.slice(0, prefix), ...tokens.slice(120, 125)];
      const logits = await decoder.append([other.slice(prefix)], [prefix]);
      expect(difference(logits, 0, fullPass(own, other), other.length - 1)).toBeLessThan(1e-5);
    }
  });

  test.each([
    ["symbolic", reference],
    ["bound", boundOnly],
  ])("rows of unequal length keep apart on a backend with %s sizes", async (_kind, make) => {
    await using backend = make();
    await using decoder = await Decoder.create({ ...own, backend, batch: 3, capacity: 150 });
    const rows = [tokens.slice(0, 90), tokens.slice(30, 33), tokens.slice(50, 118)];
    const logits = await decoder.append(rows, [0, 0, 0]);
    rows.forEach((row, index) => {
      expect(difference(logits, index, fullPass(own, row), row.length - 1)).toBeLessThan(1e-5);
    });
    // The first row is full after this, while the others go on: its padding must not reach back into its tokens.
    const more = [tokens.slice(0, 60), [2, 3], tokens.slice(0, 64)];
    const next = await decoder.append(more, [90, 3, 68]);
    more.forEach((added, index) => {
      const row = [...(rows[index] ?? []), ...added];
      expect(difference(next, index, fullPass(own, row), row.length - 1)).toBeLessThan(1e-5);
    });
  });
});

test("a prompt of several runs is read once, at its end, and of a step only tokens are", async () => {
  const events: string[] = [];
  await using backend = boundOnly(events);
  await using decoder = await Decoder.create({ ...tinyModel(["sisa"]), backend });
  await decoder.append([tokens.slice(0, 130)], [0]);
  expect(events.splice(0)).toEqual(["run", "run", "run", "read logits"]);
  await decoder.next([[1]], [130], [{ uniform: 0.5 }]);
  expect(events).toEqual(["run", "run", "read value"]);
});

test.each([
  [64, 3],
  [40, 4],
  [200, 1],
])(
  "a prompt that fills its cache is cut into chunks of the %i tokens that the backend asks for",
  async (chunkLength, runs) => {
    const own = tinyModel(["sisa"]);
    const events: string[] = [];
    await using backend = boundOnly(events, { chunkLength });
    await using decoder = await Decoder.create({ ...own, backend, capacity: length });
    const logits = await decoder.append([tokens], [0]);
    expect(events).toEqual([...new Array<string>(runs).fill("run"), "read logits"]);
    expect(difference(logits, 0, fullPass(own, tokens), length - 1)).toBeLessThan(1e-5);
  },
);

describe.each([
  ["on a host", reference],
  ["on a device", boundOnly],
] as const)("%s, tokens that follow", (_where, open) => {
  const choices = [
    { temperature: 2, uniform: 0.7 },
    { temperature: 0, uniform: 0 },
  ];
  const prompts = [tokens.slice(0, 70), tokens.slice(3, 9)];

  test("are those that are chosen with each one known before", async () => {
    const own = tinyModel(["sisa"]);
    await using backend = open();
    await using decoder = await Decoder.create({ ...own, backend, batch: 2 });
    await expect(decoder.follow(choices)).rejects.toThrow("call next first");
    const wanted = [await decoder.next(prompts, [0, 0], choices)];
    for (let count = 0; count < 4; count++) {
      const start = prompts.map(({ length: held }) => held + count);
      const rows = (wanted.at(-1) ?? []).map((token) => [token]);
      wanted.push(await decoder.next(rows, start, choices));
    }
    const found = [await decoder.next(prompts, [0, 0], choices)];
    if (decoder.runsAhead) {
      found.push(...(await Promise.all(Array.from({ length: 4 }, () => decoder.follow(choices)))));
    } else {
      for (let count = 0; count < 4; count++) found.push(await decoder.follow(choices));
    }
    expect(found).toEqual(wanted);
  });

  test("must fit", async () => {
    await using backend = open();
    await using decoder = await Decoder.create({ ...tinyModel(["sisa"]), backend, capacity: 71 });
    await decoder.next(prompts.slice(0, 1), [0], choices.slice(0, 1));
    await decoder.follow(choices.slice(0, 1));
    await expect(decoder.follow(choices.slice(0, 1))).rejects.toThrow("needs 72 tokens, its cache holds 71");
  });
});

test("a device is given the next token's work before this one is read", async () => {
  const events: string[] = [];
  await using backend = boundOnly(events);
  await using decoder = await Decoder.create({ ...tinyModel(["sisa"]), backend });
  await decoder.next([tokens.slice(0, 5)], [0], [{ uniform: 0.5 }]);
  events.splice(0);
  const first = decoder.follow([{ uniform: 0.5 }]);
  const second = decoder.follow([{ uniform: 0.5 }]);
  expect(events).toEqual(["run", "run", "read value", "run", "run", "read value"]);
  await Promise.all([first, second]);
});

test("form sdpa decodes while no clamp is active, and refuses to go on where one is", async () => {
  const own = tinyModel(["sisa"], { form: "sdpa", mixerSettings: {} });
  await using backend = reference();
  await using decoder = await Decoder.create({ ...own, backend });
  const short = await decoder.append([tokens.slice(0, 10)], [0]);
  expect(difference(short, 0, fullPass(own, tokens.slice(0, 10)), 9)).toBeLessThan(1e-5);
  await expect(decoder.append([tokens.slice(10)], [10])).rejects.toThrow('form "sdpa" clamps above 22');

  await using allowed = await Decoder.create({ ...own, backend, allowClamp: true });
  const long = await allowed.append([tokens], [0]);
  expect(difference(long, 0, fullPass(own, tokens), length - 1)).toBeGreaterThan(1e-5);
});

test("refuses what cannot be decoded", async () => {
  const own = tinyModel(["sisa"]);
  await using backend = reference();
  await expect(Decoder.create({ ...own, backend, capacity: 201 })).rejects.toThrow(ConfigError);
  await using decoder = await Decoder.create({ ...own, backend, capacity: 8 });
  await expect(decoder.append([[1, 2], [3]], [0, 0])).rejects.toThrow("expected 1 rows, got 2 of tokens");
  await expect(decoder.append([[]], [0])).rejects.toThrow("row 0 has no tokens");
  await expect(decoder.append([[1, 2, 3]], [6])).rejects.toThrow("row 0 needs 9 tokens, its cache holds 8");
  await expect(decoder.append([[vocabularySize]], [0])).rejects.toThrow("expected token ids from 0 to 18, got 19");
  await expect(decoder.append([[1]], [0])).resolves.toHaveLength(vocabularySize);
  await expect(decoder.append([[-1]], [0])).rejects.toThrow(DataError);
});
