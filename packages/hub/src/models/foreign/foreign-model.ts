// Models in the configuration and parameter names of Hugging Face transformers, read as models of ours.

import { CheckpointError, ConfigError, type LanguageModel, type ModelConfig } from "@sisa/core";
import { mamba2 } from "./mamba2.ts";

/** Where a parameter of ours is found, and what has to be done to it. */
export interface ForeignTensor {
  /** Names in the file; the elements of several follow each other. */
  readonly names: readonly string[];
  /** For each row of ours, the row of the file: for parameters of other order. */
  readonly rowOf?: ((row: number) => number) | undefined;
  /** Factor of each row, where the file keeps one beside the weights. */
  readonly factorOf?: ((row: number) => number) | undefined;
}

export interface ForeignModel {
  readonly config: ModelConfig;
  /** @param name of a parameter of ours */
  tensorFor(name: string): ForeignTensor;
}

export type Json = Readonly<Record<string, unknown>>;

const readers: { readonly [modelType: string]: (fields: ForeignConfig) => ForeignModel } = {
  mamba2,
};

/** Values of `model_type` that are known beside our own. */
export const foreignModelTypes = Object.keys(readers);

/**
 * A model described by a config.json of transformers.
 * @throws ConfigError where something in it is not known here, by name
 */
export function foreignModel(json: Json): ForeignModel | undefined {
  const reader = Object.hasOwn(readers, String(json.model_type)) ? readers[String(json.model_type)] : undefined;
  return reader?.(new ForeignConfig(json));
}

/** Fields of a config.json, each checked as it is read. */
export class ForeignConfig {
  readonly json: Json;

  constructor(json: Json) {
    this.json = json;
  }

  number(name: string, fallback?: number): number {
    const value = this.json[name] ?? fallback;
    if (typeof value === "number") return value;
    throw new ConfigError(`config.json: ${name} must be a number, got ${JSON.stringify(value)}`);
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.json[name] ?? fallback;
    if (typeof value === "boolean") return value;
    throw new ConfigError(`config.json: ${name} must be true or false, got ${JSON.stringify(value)}`);
  }

  numbers(name: string, count: number): readonly number[] {
    const value: unknown = this.json[name] ?? new Array<number>(count).fill(1);
    if (Array.isArray(value) && value.length === count && value.every((entry) => typeof entry === "number"))
      return value;
    throw new ConfigError(`config.json: ${name} must be ${count} numbers, got ${JSON.stringify(value)}`);
  }

  /** @throws ConfigError unless a field that changes what is computed is as it is here, or absent */
  expect(name: string, ...known: readonly unknown[]): void {
    const value = this.json[name] ?? known[0];
    if (!known.includes(value)) {
      const values = known.map((entry) => JSON.stringify(entry)).join(" or ");
      throw new ConfigError(
        `config.json: ${this.json.model_type} with ${name} ${JSON.stringify(value)} is not known, only ${values}`,
      );
    }
  }
}

/** "layers.3.W_Q.weight" as 3 and "W_Q.weight"; undefined for parameters outside of layers. */
export function partsOf(name: string): { readonly layer: number; readonly rest: string } | undefined {
  const found = /^layers\.(\d+)\.(.*)$/.exec(name);
  return found === null ? undefined : { layer: Number(found[1]), rest: found[2] ?? "" };
}

/** @throws CheckpointError for a parameter that the other code does not have */
export function unknownParameter(modelType: string, name: string): never {
  throw new CheckpointError(`${modelType} has no parameter for ${name}`);
}

/** A parameter of ours from the values in the file. */
export function fromForeign(tensor: ForeignTensor, values: Float32Array, rows: number): Float32Array {
  const { rowOf = (row) => row, factorOf } = tensor;
  if (!tensor.rowOf && !factorOf) return values;
  const width = values.length / rows;
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const factor = factorOf?.(row) ?? 1;
    const own = values.subarray(rowOf(row) * width, (rowOf(row) + 1) * width);
    for (let i = 0; i < width; i++) result[row * width + i] = factor * (own[i] ?? 0);
  }
  return result;
}

/** Names in the file of all parameters of a model. */
export function foreignNames(foreign: ForeignModel, model: LanguageModel): ReadonlySet<string> {
  return new Set(Object.keys(model.parameters).flatMap((name) => foreign.tensorFor(name).names));
}
