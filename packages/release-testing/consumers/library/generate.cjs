// CommonJS reaches the packages by import().
const main = async () => {
  const { generate } = await import("@sisa/core");
  const { loadModel } = await import("@sisa/hub/node");
  const { onnxruntime: openBackend } = await import("@sisa/onnx");
  const loaded = await loadModel("my-model");
  const backend = await openBackend();
  const tokens = loaded.tokenizer.encode("one ");
  const ids = [];
  for await (const id of generate({ ...loaded, backend, tokens, maxTokens: 5, temperature: 0 })) ids.push(id);
  await backend.close();
  console.log(JSON.stringify({ backend: backend.name, sample: loaded.tokenizer.decode(ids) }));
};
main();
