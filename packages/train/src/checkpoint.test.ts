// What stands in the files of a checkpoint.
import { languageModel, reference } from "@sisa/core";
import { byteTokenizer, loadModel, memoryStorage, openSafetensors } from "@sisa/hub";
import { expect, it } from "vitest";
import { stateOf, tinyTrainer } from "../test/tiny.ts";
import { openCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { accumulateGraph } from "./training-graphs.ts";

it("sizes that are filled up to even ones inside stand in the files as they are outside", async () => {
  const model = languageModel({
    mixers: ["sisa"],
    vocabularySize: 257,
    width: 12,
    heads: 2,
    feedForwardWidth: 43,
    stateWidth: 2,
    form: "exact",
    maximumLength: 32,
    ropeBase: 10_000,
    normEpsilon: 1e-6,
  });
  const inside = accumulateGraph(model, 1, "bfloat16", "none").graph.nodes.flatMap(({ outputs }) =>
    Object.values(outputs).map(({ shape }) => shape.at(-1)?.value),
  );
  expect(inside).toContain(64);

  await using backend = reference();
  const trained = await tinyTrainer(backend, { precision: "bfloat16" }, { model });
  await trained.advance(2);
  const state = await stateOf(trained);
  const storage = memoryStorage();
  const { settings } = trained;
  const metadata = { ...trained.progress, settings, model: model.config, data: "sums" };
  await writeCheckpoint(storage, trained, metadata, byteTokenizer());
  await trained.close();

  for (const file of ["model.safetensors", "training.safetensors"]) {
    await using opened = await openSafetensors(storage, file);
    expect(opened.tensors.size, file).toBeGreaterThan(0);
    for (const [name, { shape }] of opened.tensors) {
      const parameter = name.replace(/^.*(?=layers\.|embed\.|final_norm\.)/, "");
      expect(shape, name).toEqual(model.parameters[parameter]?.shape);
    }
  }
  await using checkpoint = await openCheckpoint(storage);
  for (const [name, values] of Object.entries(state)) expect(await checkpoint.read(name), name).toEqual(values);

  const loaded = await loadModel(storage);
  expect(loaded.model.config).toEqual(model.config);
  for (const [name, values] of Object.entries(loaded.parameters)) expect(values, name).toEqual(state[name]);
});
