// One model in a worker: it is trained or loaded, continues texts, and shows what it attends to.

import {
  type AttentionTermsGraph,
  attentionTermsGraph,
  type Backend,
  type DeviceTensor,
  type Executable,
  f32,
  generate,
  i32,
  type LanguageModel,
  languageModel,
  parameterCount,
  simplify,
} from "@sisa/core";
import { byteTokenizer, type Tokenizer } from "@sisa/hub";
import {
  headTable,
  type MetricsRecord,
  readHeldOut,
  resolveSettings,
  Trainer,
  textDocuments,
  trainingBatch,
} from "@sisa/train";
import { type BackendChoice, type OpenBackend, openBackend } from "./open-backend.ts";
import { openModelFiles } from "./open-model-files.ts";
import { Turns } from "./turns.ts";
import { type AttentionView, type LayerView, type ModelFacts, type TrainingSetup, trainingConfig } from "./views.ts";

interface Current {
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly parameters: () => Promise<Readonly<Record<string, Float32Array>>>;
}

type AnyExecutable = Executable<AttentionTermsGraph["inputs"], AttentionTermsGraph["outputs"]>;

/** Everything that the page asks of a worker. Steps of training and requests take turns. */
export class ModelSession {
  readonly #turns = new Turns();
  #backend: Promise<OpenBackend> | undefined;
  #current: Current | undefined;
  #trainer: Trainer | undefined;
  #terms: { readonly model: LanguageModel; readonly length: number; readonly executable: AnyExecutable } | undefined;
  #stopped = false;

  /** Starts a backend. @returns what it runs on, and why not on WebGPU where it does not */
  async open(choice: BackendChoice): Promise<Omit<OpenBackend, "backend">> {
    this.#backend = openBackend(choice);
    const { backend: _, ...about } = await this.#backend;
    return about;
  }

  /** Makes the model and compiles its training. @throws DataError where the text is too short */
  async prepare(setup: TrainingSetup): Promise<ModelFacts> {
    return await this.#turns.take(async () => {
      const backend = await this.#opened();
      await this.#trainer?.close();
      this.#trainer = undefined;
      const tokenizer = byteTokenizer();
      const model = languageModel(trainingConfig(setup));
      const data = textDocuments([setup.text], tokenizer, { name: "the text" });
      const settings = resolveSettings(
        { steps: setup.steps, sequenceLength: setup.sequenceLength, microBatchSize: 8, seed: setup.seed },
        { parameterCount: parameterCount(model) },
      );
      const trainer = await Trainer.create({
        model,
        backend,
        settings,
        heldOut: await readHeldOut(data, settings),
        batches: (step, microBatch) => trainingBatch(data.training, settings, step, microBatch),
      });
      // The first step shows whether there is text enough for one, before the page says that training runs.
      await trainingBatch(data.training, settings, 0, 0);
      this.#trainer = trainer;
      this.#stopped = false;
      this.#current = { model, tokenizer, parameters: () => trainer.parameters() };
      return factsOf(model);
    });
  }

  /**
   * Trains to the last step, or until stopped.
   * @param write called with every record
   */
  async train(write: (record: MetricsRecord) => void): Promise<void> {
    const trainer = this.#trainer;
    if (trainer === undefined) throw new Error("train: prepare comes first");
    const { steps, evaluateEvery } = trainer.settings;
    while (trainer.progress.step < steps && !this.#stopped) {
      await this.#turns.take(async () => {
        const { records, skippedBecause } = await trainer.advance(1);
        for (const record of records) write(record);
        const { step, elapsedSeconds } = trainer.progress;
        if (skippedBecause !== undefined) write({ type: "warning", step, message: skippedBecause });
        if (step % evaluateEvery !== 0 && step !== steps) return;
        const { heldOutLoss, bitsPerByte } = await trainer.evaluate();
        const inBits = bitsPerByte === undefined ? {} : { bitsPerByte };
        const tokens = step * trainer.settings.batchTokens;
        write({ type: "evaluation", step, tokens, elapsedSeconds, heldOutLoss, ...inBits });
      });
      await this.#turns.resumed();
    }
  }

  /** Holds training up. @returns once the step that was under way is done */
  async pause(): Promise<void> {
    this.#turns.pause();
    await this.#turns.take(async () => {});
  }

  resume(): void {
    this.#turns.resume();
  }

  /** Ends training after the step it is in; what was learned stays. */
  stop(): void {
    this.#stopped = true;
    this.#turns.resume();
  }

  /** Loads a model folder, or an official checkpoint with or without its tokenizer.json. @throws CheckpointError */
  async load(files: readonly File[]): Promise<ModelFacts> {
    const { model, tokenizer, parameters } = await openModelFiles(files);
    this.#current = { model, tokenizer, parameters: async () => parameters };
    return factsOf(model);
  }

  /**
   * Continues a prompt.
   * @param write called with each piece of text as it comes
   */
  async sample(
    prompt: string,
    options: { readonly maxTokens: number; readonly temperature: number; readonly seed: number },
    write: (text: string) => void,
  ): Promise<void> {
    await this.#turns.take(async () => {
      const backend = await this.#opened();
      const { model, tokenizer, parameters } = this.#model();
      const { endOfText } = tokenizer;
      const room = Math.max(1, model.config.maximumLength - options.maxTokens);
      const encoded = tokenizer.encode(prompt).slice(-room);
      const tokens = encoded.length > 0 || endOfText === undefined ? encoded : [endOfText];
      const decoder = tokenizer.streamDecoder();
      const stopTokens = endOfText === undefined ? [] : [endOfText];
      // A model that is still learning, or is only looked at, is not the place to insist on the clamp.
      const generated = generate({
        model,
        backend,
        parameters: await parameters(),
        tokens,
        stopTokens,
        allowClamp: true,
        ...options,
      });
      for await (const id of generated) write(decoder.push(id));
      write(decoder.flush());
    });
  }

  /** What every layer and head attends to in a text, of which the first `maximumTokens` tokens count. */
  async attention(text: string, maximumTokens: number): Promise<AttentionView> {
    return await this.#turns.take(async () => {
      const backend = await this.#opened();
      const { model, tokenizer, parameters: read } = this.#model();
      const ids = tokenizer.encode(text);
      const { maximumLength, heads } = model.config;
      const most = Math.min(maximumTokens, maximumLength);
      const used = ids.slice(0, most);
      if (used.length === 0) throw new Error("There is no text to look at. Type some.");
      const parameters = await read();
      const layers = await this.#layers(backend, model, parameters, used);
      const decay = layers.flatMap(({ meanLogDecay }) => (meanLogDecay === undefined ? [] : [meanLogDecay]));
      const decoder = tokenizer.streamDecoder();
      // Meta tokens stand in front of every text.
      const tokens = [...model.prefix.map((_, index) => `⟨${index}⟩`), ...used.map((id) => decoder.push(id))];
      const table = headTable(parameters, decay.length > 0 ? decay : undefined);
      return { tokens, cut: ids.length > used.length, heads, layers, ...(table === undefined ? {} : { table }) };
    });
  }

  async #layers(
    backend: Backend,
    model: LanguageModel,
    parameters: Readonly<Record<string, Float32Array>>,
    ids: readonly number[],
  ): Promise<LayerView[]> {
    const executable = await this.#termsOf(backend, model, ids.length);
    const inputs: Record<string, DeviceTensor> = { ids: backend.tensor(i32(1, ids.length), Int32Array.from(ids)) };
    for (const [name, { shape }] of Object.entries(model.parameters)) {
      inputs[name] = backend.tensor(f32(...shape), parameters[name]);
    }
    try {
      const outputs = Object.entries(executable.run(inputs));
      const values = Object.fromEntries(
        await Promise.all(
          outputs.map(async ([name, tensor]) => [name, (await tensor.read()) as Float32Array] as const),
        ),
      );
      const layers = new Set(Object.keys(values).map((name) => name.slice(0, name.lastIndexOf("."))));
      return [...layers].map((layer) => layerView(layer, values, model.config.heads));
    } finally {
      for (const tensor of Object.values(inputs)) tensor.dispose();
    }
  }

  /** The compiled graph, kept while the model and, on backends of fixed sizes, the length stay. */
  async #termsOf(backend: Backend, model: LanguageModel, length: number): Promise<AnyExecutable> {
    const fixed = backend.limits.symbolicDims ? 0 : length;
    if (this.#terms?.model === model && this.#terms.length === fixed) return this.#terms.executable;
    this.#terms?.executable.close();
    const graph = attentionTermsGraph(model).bind({ B: 1, ...(fixed > 0 ? { T: fixed } : {}) });
    const executable = await backend.compile(simplify(graph));
    this.#terms = { model, length: fixed, executable };
    return executable;
  }

  async #opened(): Promise<Backend> {
    if (this.#backend === undefined) throw new Error("open comes first");
    return (await this.#backend).backend;
  }

  #model(): Current {
    if (this.#current === undefined) throw new Error("There is no model yet: start training, or open one.");
    return this.#current;
  }
}

function layerView(layer: string, values: Readonly<Record<string, Float32Array>>, heads: number): LayerView {
  const [content, attention] = [values[`${layer}.content`], values[`${layer}.attention`]];
  if (content === undefined || attention === undefined) throw new Error(`${layer}: its terms are missing`);
  const name = layer.replace("layers.", "");
  const [importance, logDecay] = [values[`${layer}.importance`], values[`${layer}.logDecay`]];
  if (importance === undefined || logDecay === undefined) return { name, content, attention };
  return { name, content, attention, importance, meanLogDecay: meanByHead(logDecay, heads) };
}

/** Mean of [1,T,H] over T. */
function meanByHead(values: Float32Array, heads: number): number[] {
  const sums = new Array<number>(heads).fill(0);
  values.forEach((value, index) => {
    sums[index % heads] = (sums[index % heads] ?? 0) + value;
  });
  return sums.map((sum) => (sum * heads) / values.length);
}

function factsOf(model: LanguageModel): ModelFacts {
  const { mixers, heads, width, vocabularySize, form } = model.config;
  return { mixers, heads, width, vocabularySize, form, parameters: parameterCount(model) };
}
