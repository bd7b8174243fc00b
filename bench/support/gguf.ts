// Writes a language model as a GGUF file for llama.cpp: a Llama of the Transformer's shape, float32, tied head.
// The vocabulary is a dummy: the tokens have no text, since only ids go in and come out.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { closeSync, openSync, writeSync } from "node:fs";
import type { ModelConfig } from "@sisa/core";

const version = 3;
const alignment = 32;
/** Numbers of the value types that are used here. */
const valueType = { uint32: 4, int32: 5, float32: 6, string: 8, array: 9 } as const;
const float32Tensor = 0;
/** Token types of llama.cpp. */
const tokenType = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

type Value =
  | { readonly type: "uint32" | "float32"; readonly value: number }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "float32s"; readonly value: Float32Array }
  | { readonly type: "int32s"; readonly value: Int32Array };

class Bytes {
  readonly #parts: Buffer[] = [];
  length = 0;

  raw(part: Buffer): this {
    this.#parts.push(part);
    this.length += part.length;
    return this;
  }

  uint32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    return this.raw(part);
  }

  uint64(value: number): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    return this.raw(part);
  }

  float32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeFloatLE(value);
    return this.raw(part);
  }

  string(value: string): this {
    const part = Buffer.from(value, "utf8");
    return this.uint64(part.length).raw(part);
  }

  value(entry: Value): this {
    switch (entry.type) {
      case "uint32":
        return this.uint32(valueType.uint32).uint32(entry.value);
      case "float32":
        return this.uint32(valueType.float32).float32(entry.value);
      case "string":
        return this.uint32(valueType.string).string(entry.value);
      case "strings":
        this.#array(valueType.string, entry.value.length);
        for (const item of entry.value) this.string(item);
        return this;
      case "float32s":
        return this.#array(valueType.float32, entry.value.length).raw(bytesOf(entry.value));
      case "int32s":
        return this.#array(valueType.int32, entry.value.length).raw(bytesOf(entry.value));
    }
  }

  #array(type: number, length: number): this {
    return this.uint32(valueType.array).uint32(type).uint64(length);
  }

  pad(): this {
    return this.raw(Buffer.alloc(padding(this.length)));
  }

  concat(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

function bytesOf(data: Float32Array | Int32Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

function padding(length: number): number {
  return (alignment - (length % alignment)) % alignment;
}

/** Our names of a Transformer's parameters, and llama.cpp's. Both store weights [out, in] and rotate interleaved pairs. */
function tensorNames({ mixers }: ModelConfig): readonly (readonly [ours: string, theirs: string])[] {
  const ofLayer = [
    ["attn_norm", "attn_norm"],
    ["W_Q", "attn_q"],
    ["W_K", "attn_k"],
    ["W_V", "attn_v"],
    ["W_O", "attn_output"],
    ["ffn_norm", "ffn_norm"],
    ["ffn.w_gate", "ffn_gate"],
    ["ffn.w_up", "ffn_up"],
    ["ffn.w_down", "ffn_down"],
  ] as const;
  const layers = mixers.flatMap((_, index) =>
    ofLayer.map(([ours, theirs]) => [`layers.${index}.${ours}.weight`, `blk.${index}.${theirs}.weight`] as const),
  );
  return [["embed.weight", "token_embd.weight"], ...layers, ["final_norm.weight", "output_norm.weight"]];
}

function metadata(config: ModelConfig): Readonly<Record<string, Value>> {
  const uint32 = (value: number): Value => ({ type: "uint32", value });
  const float32 = (value: number): Value => ({ type: "float32", value });
  const vocabulary = config.vocabularySize;
  const special = ["<unk>", "<s>", "</s>"];
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const named = [...special, ...bytes];
  const tokens = Array.from({ length: vocabulary }, (_, id) => named[id] ?? `token${id}`);
  const types = Int32Array.from({ length: vocabulary }, (_, id) => {
    if (id === 0) return tokenType.unknown;
    if (id < special.length) return tokenType.control;
    return id < named.length ? tokenType.byte : tokenType.normal;
  });
  return {
    "general.architecture": { type: "string", value: "llama" },
    "general.name": { type: "string", value: "transformer" },
    "general.file_type": uint32(0),
    "llama.context_length": uint32(config.maximumLength),
    "llama.embedding_length": uint32(config.width),
    "llama.block_count": uint32(config.mixers.length),
    "llama.feed_forward_length": uint32(config.feedForwardWidth),
    "llama.attention.head_count": uint32(config.heads),
    "llama.attention.head_count_kv": uint32(config.heads),
    "llama.attention.layer_norm_rms_epsilon": float32(config.normEpsilon),
    "llama.rope.dimension_count": uint32(config.width / config.heads),
    "llama.rope.freq_base": float32(config.ropeBase),
    "llama.vocab_size": uint32(vocabulary),
    "tokenizer.ggml.model": { type: "string", value: "llama" },
    "tokenizer.ggml.tokens": { type: "strings", value: tokens },
    "tokenizer.ggml.scores": { type: "float32s", value: new Float32Array(vocabulary) },
    "tokenizer.ggml.token_type": { type: "int32s", value: types },
    "tokenizer.ggml.unknown_token_id": uint32(0),
    "tokenizer.ggml.bos_token_id": uint32(1),
    "tokenizer.ggml.eos_token_id": uint32(2),
  };
}

/**
 * Writes a Transformer's parameters as a Llama.
 * @throws Error where a parameter is missing
 */
export function writeGguf(
  file: string,
  config: ModelConfig,
  parameters: { readonly [name: string]: Float32Array },
): void {
  const entries = Object.entries(metadata(config));
  const tensors = tensorNames(config).map(([ours, theirs]) => {
    const data = parameters[ours];
    if (data === undefined) throw new Error(`writeGguf: parameter "${ours}" is missing`);
    // Sizes are listed from the innermost.
    const isVector = ours.endsWith("norm.weight");
    const inner = ours.endsWith("w_down.weight") ? config.feedForwardWidth : config.width;
    return { name: theirs, data, sizes: isVector ? [data.length] : [inner, data.length / inner] };
  });

  const head = new Bytes().raw(Buffer.from("GGUF", "latin1")).uint32(version);
  head.uint64(tensors.length).uint64(entries.length);
  for (const [key, value] of entries) head.string(key).value(value);
  let offset = 0;
  for (const { name, data, sizes } of tensors) {
    head.string(name).uint32(sizes.length);
    for (const size of sizes) head.uint64(size);
    head.uint32(float32Tensor).uint64(offset);
    offset += data.byteLength + padding(data.byteLength);
  }

  const descriptor = openSync(file, "w");
  try {
    writeSync(descriptor, head.pad().concat());
    for (const { data } of tensors) {
      writeSync(descriptor, bytesOf(data));
      writeSync(descriptor, Buffer.alloc(padding(data.byteLength)));
    }
  } finally {
    closeSync(descriptor);
  }
}
