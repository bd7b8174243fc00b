// How fast the heads of a SISA model forget on real text: the mean of log alpha.
import {
  type AnyTensor,
  type Backend,
  Graph,
  i32,
  type LanguageModel,
  mean,
  simplify,
  sisaAttentionOp,
  type Tensor,
} from "@sisa/core";
import type { HeadValues } from "./heads.ts";

/**
 * Mean log decay of each SISA layer and head.
 *
 * @param batch.ids  token ids [rows, T], row major
 * @param batch.rows how many rows they are
 * @returns by SISA layer and head, or undefined for a model without such layers
 */
export async function measureLogDecay(
  model: LanguageModel,
  parameters: Readonly<Record<string, Float32Array>>,
  backend: Backend,
  batch: { readonly ids: Int32Array; readonly rows: number },
): Promise<HeadValues | undefined> {
  const graph = model.logitsGraph().bind({ B: batch.rows, T: batch.ids.length / batch.rows });
  const decays = graph.nodes
    .filter(({ op }) => op === sisaAttentionOp)
    .map(({ inputs }) => mean(inputs.logDecay as Tensor, { axes: [0, 1] }));
  if (decays.length === 0) return undefined;
  const outputs: Record<string, AnyTensor> = Object.fromEntries(decays.map((decay, layer) => [String(layer), decay]));
  const measured = simplify(new Graph(graph.inputTensors, outputs) as Graph);
  const executable = await backend.compile(measured, { constants: parameters });
  const ids = backend.tensor(i32(batch.rows, batch.ids.length / batch.rows), batch.ids);
  try {
    const results = executable.run({ ids });
    return await Promise.all(Object.values(results).map(async (tensor) => Array.from(await tensor.read())));
  } finally {
    executable.close();
    ids.dispose();
  }
}
