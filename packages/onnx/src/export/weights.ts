// Weights of exported files in fewer bits. The matrices that are multiplied by or looked up in are stored so; vectors, and
// what feeds running sums, stay float32, and so does all arithmetic but the products of int8.

import {
  type AnyTensor,
  type Attributes,
  apply,
  DataError,
  Dim,
  definePrimitive,
  fromFloat16Bits,
  Graph,
  gatherOp,
  inputOp,
  matmulOp,
  rebuild,
  rewrite,
  type Tensor,
  toFloat16Bits,
} from "@sisa/core";
import type { Lowerings } from "../lower.ts";
import { type Emitter, lowering, type Slot } from "../lowering.ts";
import { notNegative } from "../lowerings/gather.ts";
import type { Value } from "../model-proto.ts";

/** Element types that weights can be stored in. */
export const weightTypes = ["float32", "float16", "int8", "int4"] as const;
/** "float32", "float16", "int8" or "int4". */
export type WeightType = (typeof weightTypes)[number];

/** What the names of files end in, as Transformers.js asks for them. */
export const suffixes: { readonly [T in WeightType]: string } = {
  float32: "",
  float16: "_fp16",
  int8: "_int8",
  int4: "_q4",
};

/**
 * What stands for zero where weights have eight bits: they are stored without sign, since processors without AVX-512 VNNI
 * saturate sums of products of unsigned with signed bytes.
 */
const int8Zero = 128;

/** Inputs that share a scale where weights have four bits. */
const blockSize = 32;

/**
 * Projections whose results are summed over the whole sequence before an exponential or an angle is taken of them: what
 * rounding does to one of them grows with every token.
 */
const summed = /\b(alpha|theta|dt|x)_proj\.weight$/;

/** A matrix [out, in] as it is stored. */
interface StoredWeight {
  readonly [name: string]: unknown;
  readonly name: string;
  readonly out: number;
  readonly in: number;
  readonly type: Exclude<WeightType, "float32">;
  /** float16: [out, in] bits. int8: [out, in], above `int8Zero`. int4: [in, out], two in a byte, the first in its low half. */
  readonly data: Uint16Array | Uint8Array;
  /** int8: [out]. int4: [in / 32, out]. */
  readonly scales: Float32Array;
  /** What it stands for, [out, in]. */
  readonly values: Float32Array;
}

/** The weights of a model in one type. */
export class StoredWeights {
  readonly #parameters: { readonly [name: string]: Float32Array };
  readonly #type: WeightType;
  readonly #stored = new Map<string, StoredWeight>();

  constructor(parameters: { readonly [name: string]: Float32Array }, type: WeightType) {
    this.#parameters = parameters;
    this.#type = type;
  }

  /** A graph that holds its matrices in this type; they are no inputs of it any more. */
  rewrite(graph: Graph): Graph {
    const type = this.#type;
    if (type === "float32") return graph;
    const tables = new Set(graph.nodes.flatMap(({ op, inputs }) => (op === gatherOp ? Object.values(inputs) : [])));
    const weightOf = (tensor: AnyTensor | undefined) => {
      // Lookups take whole rows, which int4 does not store together.
      const fits = type !== "int4" || !(tensor && tables.has(tensor));
      return tensor && this.#weightOf(tensor, fits ? type : "int8");
    };
    const changed = rewrite(graph, (node, inputs) => {
      const { transposeA, transposeB } = node.attributes;
      if (node.op === matmulOp && transposeB && !transposeA) {
        const weight = weightOf(node.inputs.b);
        if (weight) return apply(linearOp, { x: inputs.a as Tensor }, { weight });
      }
      if (node.op === gatherOp) {
        const weight = weightOf(node.inputs.table);
        if (weight) return apply(embeddingOp, { ids: inputs.ids as Tensor<"int"> }, { weight });
      }
      return rebuild(node, inputs);
    });
    const read = new Set(changed.nodes.flatMap(({ inputs }) => Object.values(inputs)));
    const inputs = Object.entries(changed.inputTensors).filter(
      ([name, tensor]) => !this.#stored.has(name) || read.has(tensor),
    );
    return new Graph(Object.fromEntries(inputs), changed.outputTensors, changed.nodes);
  }

  /** A parameter as it is stored; undefined for what is none, or stays float32. */
  #weightOf(tensor: AnyTensor, type: StoredWeight["type"]): StoredWeight | undefined {
    if (tensor.node.op !== inputOp || tensor.shape.length !== 2) return undefined;
    const name = tensor.node.attributes.name as string;
    const values = this.#parameters[name];
    if (values === undefined || summed.test(name)) return undefined;
    const known = this.#stored.get(name);
    if (known) return known;
    const [out = 0, width = 0] = tensor.shape.map((size) => size.value ?? 0);
    const weight = storeWeight(name, values, out, width, type === "int4" && width % blockSize !== 0 ? "int8" : type);
    this.#stored.set(name, weight);
    return weight;
  }
}

function storeWeight(
  name: string,
  values: Float32Array,
  out: number,
  width: number,
  type: StoredWeight["type"],
): StoredWeight {
  if (!values.every(Number.isFinite)) throw new DataError(`export: parameter "${name}" has values that are not finite`);
  const common = { name, out, in: width, type };
  switch (type) {
    case "float16":
      return { ...common, ...toFloat16(name, values) };
    case "int8":
      return { ...common, ...toInt8(values, out, width) };
    case "int4":
      return { ...common, ...toInt4(values, out, width) };
  }
}

type Stored = Pick<StoredWeight, "data" | "scales" | "values">;

function toFloat16(name: string, values: Float32Array): Stored {
  const data = new Uint16Array(values.length);
  const rounded = new Float32Array(values.length);
  // `from` with a function takes fifty times as long.
  for (let i = 0; i < values.length; i++) {
    data[i] = toFloat16Bits(values[i] ?? 0);
    rounded[i] = fromFloat16Bits(data[i] ?? 0);
  }
  if (!rounded.every(Number.isFinite)) {
    throw new DataError(`export: parameter "${name}" has values above 65504, which float16 cannot hold; use float32`);
  }
  return { data, scales: new Float32Array(0), values: rounded };
}

/** One scale per row, zero at zero. */
function toInt8(values: Float32Array, out: number, width: number): Stored {
  const data = new Uint8Array(values.length);
  const rounded = new Float32Array(values.length);
  const scales = new Float32Array(out);
  for (let row = 0; row < out; row++) {
    const part = values.subarray(row * width, (row + 1) * width);
    const scale = Math.fround(part.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / 127);
    scales[row] = scale;
    for (let i = 0; i < width; i++) {
      const whole = scale === 0 ? 0 : Math.round((part[i] ?? 0) / scale);
      data[row * width + i] = whole + int8Zero;
      rounded[row * width + i] = whole * scale;
    }
  }
  return { data, scales, values: rounded };
}

/** One scale per row and 32 inputs. The value farthest from zero is -8, which has no counterpart above zero. */
function toInt4(values: Float32Array, out: number, width: number): Stored {
  const data = new Uint8Array(values.length / 2);
  const scales = new Float32Array(values.length / blockSize);
  const rounded = new Float32Array(values.length);
  for (let row = 0; row < out; row++) {
    for (let block = 0; block < width / blockSize; block++) {
      const start = row * width + block * blockSize;
      const part = values.subarray(start, start + blockSize);
      const farthest = part.reduce((far, value) => (Math.abs(value) > Math.abs(far) ? value : far), 0);
      const scale = Math.fround(farthest / -8);
      scales[block * out + row] = scale;
      for (let i = 0; i < blockSize; i++) {
        const whole = scale === 0 ? 0 : Math.max(-8, Math.min(7, Math.round((part[i] ?? 0) / scale)));
        rounded[start + i] = whole * scale;
        const place = (block * blockSize + i) * out + row;
        data[place >> 1] = (data[place >> 1] ?? 0) | ((whole & 15) << ((place & 1) * 4));
      }
    }
  }
  return { data, scales, values: rounded };
}

interface WeightAttributes extends Attributes {
  readonly weight: StoredWeight;
}

const reason = { reason: "stored weights are for inference" };

const linearOp = /* @__PURE__ */ definePrimitive<"onnx/linear", { readonly x: Tensor }, WeightAttributes>({
  name: "onnx/linear",
  inputs: ["x"],
  infer: ({ x }, { weight }) => ({ value: { dtype: x.dtype, shape: x.shape.with(-1, Dim.of(weight.out)) } }),
  reference({ x }, { weight }, { value }) {
    const { out, in: width, values } = weight;
    for (let place = 0; place < value.data.length; place++) {
      const [row, column] = [Math.floor(place / out) * width, (place % out) * width];
      let total = 0;
      for (let i = 0; i < width; i++) total += (x.data[row + i] ?? 0) * (values[column + i] ?? 0);
      value.data[place] = total;
    }
  },
  vjp: reason,
});

const embeddingOp = /* @__PURE__ */ definePrimitive<
  "onnx/embedding",
  { readonly ids: Tensor<"int"> },
  WeightAttributes
>({
  name: "onnx/embedding",
  inputs: ["ids"],
  infer: ({ ids }, { weight }) => ({ value: { dtype: "float32", shape: [...ids.shape, Dim.of(weight.in)] } }),
  reference({ ids }, { weight: { in: width, values } }, { value }) {
    for (const [place, id] of ids.data.entries()) {
      value.data.set(values.subarray(id * width, (id + 1) * width), place * width);
    }
  },
  vjp: reason,
});

/** Constants that a weight became, by its name. */
const constants: Slot<Value> = { name: "stored weights" };

function constantOf(emit: Emitter, { name, out, in: width, type, data }: StoredWeight): Value {
  const dims = type === "int4" ? [width, out] : [out, width];
  return (
    emit.kept(constants, name) ??
    emit.keep(constants, name, emit.builder.namedConstant(name, data, dims, type === "int8" ? "uint8" : type))
  );
}

function scalesOf(emit: Emitter, { name: of, out, type, scales }: StoredWeight): Value {
  const name = `${of}.scale`;
  const dims = type === "int4" ? [scales.length / out, out] : [out];
  return (
    emit.kept(constants, name) ?? emit.keep(constants, name, emit.builder.namedConstant(name, scales, dims, "float32"))
  );
}

function int8ZeroOf(emit: Emitter): Value {
  return emit.builder.constant(Uint8Array.of(int8Zero), [], "uint8");
}

export const weightLowerings: Lowerings = {
  [linearOp.name]: lowering(linearOp, ({ emit, inputs: { x }, attributes: { weight } }) => {
    const stored = constantOf(emit, weight);
    switch (weight.type) {
      case "float16":
        return { value: emit.node("MatMul", [x, emit.transpose(emit.cast(stored, "float32"), [1, 0])]) };
      case "int4": {
        const settings = { axis: 0, block_size: blockSize };
        return {
          value: emit.node("MatMul", [x, emit.node("DequantizeLinear", [stored, scalesOf(emit, weight)], settings)]),
        };
      }
      case "int8": {
        const [quantized = "", scale = "", zero = ""] = emit.nodes(3, "DynamicQuantizeLinear", [x]);
        const weights = emit.transpose(stored, [1, 0]);
        const sums = emit.node("MatMulInteger", [quantized, weights, zero, int8ZeroOf(emit)]);
        const scales = emit.node("Mul", [scale, scalesOf(emit, weight)]);
        return { value: emit.node("Mul", [emit.cast(sums, "float32"), scales]) };
      }
    }
  }),
  [embeddingOp.name]: lowering(embeddingOp, ({ emit, inputs: { ids }, attributes: { weight } }) => {
    const places = notNegative(emit, ids);
    const rows = (table: Value) => emit.node("Gather", [table, places], { axis: 0 });
    const stored = constantOf(emit, weight);
    if (weight.type === "float16") return { value: rows(emit.cast(stored, "float32")) };
    const scales = emit.node("Unsqueeze", [rows(scalesOf(emit, weight)), emit.builder.int64(-1)]);
    const whole = emit.node("Sub", [emit.cast(rows(stored), "float32"), emit.builder.float(int8Zero)]);
    return { value: emit.node("Mul", [whole, scales]) };
  }),
};
