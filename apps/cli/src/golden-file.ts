// What golden files hold: weights and settings in the names of the code that wrote them.
import { CheckpointError, type LanguageModel, languageModel, type ModelConfig, type SisaForm } from "@sisa/core";
import {
  type ForeignModel,
  type ForeignTensor,
  foreignModel,
  foreignModelTypes,
  fromForeign,
  type HostTensor,
  parseJson,
  type TensorSource,
  toFloat32,
  toInt32,
} from "@sisa/hub";

/** Kinds of files in parameter names of ours. */
const ownKinds: readonly string[] = ["sisa", "transformer", "mamba3"];

/** A golden file: sizes, weights and what was computed from them, read as parameters of a model of ours. */
export class GoldenFile {
  readonly file: TensorSource;
  readonly kind: string;
  readonly #sizes: Readonly<Record<string, unknown>>;
  readonly #foreign: ForeignModel | undefined;

  constructor(file: TensorSource) {
    this.file = file;
    this.#sizes = this.json("config");
    const { kind, model_type: modelType } = this.#sizes;
    this.#foreign = kind === undefined ? foreignModel(this.#sizes) : undefined;
    const isKnown = this.#foreign !== undefined || ownKinds.includes(String(kind));
    if (!isKnown) {
      const known = [...ownKinds, ...foreignModelTypes].join(", ");
      throw new CheckpointError(
        `${file.location}: expected a golden file of kind ${known}, got ${kind ?? modelType ?? "none"}`,
      );
    }
    this.kind = String(kind ?? modelType);
  }

  json(name: string): Record<string, unknown> {
    const text = this.file.metadata[name];
    if (text === undefined) {
      throw new CheckpointError(`${this.file.location}: not a golden file: its metadata has no "${name}"`);
    }
    try {
      const value = parseJson(text);
      if (typeof value === "object" && value !== null) return { ...value };
    } catch {
      // Told below, with the file's name.
    }
    throw new CheckpointError(`${this.file.location}: its metadata "${name}" is not a JSON object`);
  }

  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  number(values: Readonly<Record<string, unknown>>, name: string, fallback?: number): number {
    const value = values[name] ?? fallback;
    if (typeof value === "number") return value;
    throw new CheckpointError(`${this.file.location}: ${name} must be a number, got ${JSON.stringify(value)}`);
  }

  /** The model that the file is about, long enough for its sequences. */
  model(form: SisaForm, length: number): LanguageModel {
    const config = this.#foreign?.config ?? this.#ownConfig(form, length);
    return languageModel({ ...config, maximumLength: Math.max(length, config.maximumLength) });
  }

  #ownConfig(form: SisaForm, length: number): ModelConfig {
    const size = (name: string, fallback?: number): number => this.number(this.#sizes, name, fallback);
    if (this.kind === "mamba3") return this.#mamba3Config(length);
    const mixer = this.kind === "sisa" ? "sisa" : "attention";
    return {
      mixers: Array.from({ length: size("n_layer") }, () => mixer),
      vocabularySize: size("vocab_size"),
      width: size("d_model"),
      heads: size("n_head"),
      feedForwardWidth: size("d_ff"),
      // A Transformer has none.
      stateWidth: mixer === "sisa" ? size("d_state") : size("d_state", 2),
      form,
      maximumLength: size("max_seq_len", length),
      ropeBase: size("rope_theta", 10_000),
      normEpsilon: size("rms_eps", 1e-6),
    };
  }

  #mamba3Config(length: number): ModelConfig {
    const size = (name: string): number => this.number(this.#sizes, name);
    const isHeavy = this.#sizes.a_activation !== "softplus";
    return {
      mixers: Array.from({ length: size("n_layer") }, () => "mamba3"),
      vocabularySize: size("vocab_size"),
      width: size("d_model"),
      heads: 1,
      feedForwardWidth: 0,
      stateWidth: size("d_state"),
      form: "exact",
      maximumLength: length,
      ropeBase: 10_000,
      normEpsilon: size("rms_eps"),
      mixerSettings: {
        mamba3: {
          kind: "mamba3",
          innerWidth: size("expand") * size("d_model"),
          headWidth: size("headdim"),
          groups: size("ngroups"),
          decay: isHeavy ? "heavy-tail" : "softplus",
        },
      },
    };
  }

  async tensor(name: string, rank: number): Promise<HostTensor> {
    const tensor = await this.file.read(name);
    if (tensor.shape.length !== rank) {
      throw new CheckpointError(`${this.file.location}: ${name} must have ${rank} axes, got [${tensor.shape}]`);
    }
    return tensor;
  }

  async floats(name: string): Promise<Float32Array> {
    return toFloat32(await this.file.read(name), `${this.file.location}: ${name}`);
  }

  async ids(name: string, rank: number): Promise<{ shape: readonly number[]; data: Int32Array }> {
    const tensor = await this.tensor(name, rank);
    return { shape: tensor.shape, data: toInt32(tensor, `${this.file.location}: ${name}`) };
  }

  /** The tensors under a prefix such as "weight.", which must be exactly the model's parameters. */
  async parameters(model: LanguageModel, prefix: string): Promise<Record<string, Float32Array>> {
    const { location, tensors } = this.file;
    const names = Object.keys(model.parameters).flatMap((name) => this.#tensorFor(name).names);
    const known = new Set(names.map((name) => prefix + name));
    for (const name of tensors.keys()) {
      if (name.startsWith(prefix) && !known.has(name)) {
        throw new CheckpointError(`${location}: ${name} is no parameter of a ${this.kind} of these sizes`);
      }
    }
    const values: Record<string, Float32Array> = {};
    for (const name of Object.keys(model.parameters)) values[name] = await this.parameter(model, prefix, name);
    return values;
  }

  /** What the file holds under a prefix for a parameter of the model: its values, or its gradient. */
  async parameter(model: LanguageModel, prefix: string, name: string): Promise<Float32Array> {
    const { location, tensors } = this.file;
    const shape = model.parameters[name]?.shape ?? [];
    const tensor = this.#tensorFor(name);
    const [source = name] = tensor.names;
    const found = tensors.get(prefix + source);
    if (found === undefined) throw new CheckpointError(`${location}: ${prefix}${source} is missing`);
    const expected = tensor.rows === undefined ? shape : [tensor.rows, ...shape.slice(1)];
    if (found.shape.join() !== expected.join()) {
      throw new CheckpointError(`${location}: ${prefix}${source} must be [${expected}], got [${found.shape}]`);
    }
    const { factorOf } = tensor;
    // Where our weight is a multiple of theirs, our gradient is a fraction.
    const inverse = factorOf && prefix === "grad." ? (row: number) => 1 / factorOf(row) : factorOf;
    return fromForeign({ ...tensor, factorOf: inverse }, await this.floats(prefix + source), shape);
  }

  #tensorFor(name: string): ForeignTensor {
    return this.#foreign?.tensorFor(name) ?? { names: [name] };
  }
}
