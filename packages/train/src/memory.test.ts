// The bound on memory is one: what a training graph holds at its peak is more.
import { type AnyTensor, languageModel, parameterCount, preset, sizesOf } from "@sisa/core";
import { expect, it } from "vitest";
import { leastTrainingBytes } from "./memory.ts";
import { rematerializations } from "./rematerialize.ts";
import { accumulateGraph } from "./training-graphs.ts";

const batch = { microBatchSize: 2, sequenceLength: 64 };
const model = languageModel(
  preset("sisa", "1m", { vocabularySize: 31, width: 32, heads: 2, layers: 6, stateWidth: 4, maximumLength: 64 }),
);

/** Bytes of float32 values that are computed and still needed, at the node where they are most. */
function peakBytes(rematerialize: (typeof rematerializations)[number]): number {
  const bound = { B: batch.microBatchSize, T: batch.sequenceLength };
  const { nodes, inputTensors, outputTensors } = accumulateGraph(model, 1, "float32", rematerialize).graph.bind(bound);
  const lastUse = new Map<AnyTensor, number>();
  nodes.forEach((node, index) => {
    for (const tensor of Object.values(node.inputs)) lastUse.set(tensor, index);
  });
  const bytesOf = ({ shape }: AnyTensor) => 4 * sizesOf(shape).reduce((a, b) => a * b, 1);
  // Parameters and gradients are counted apart.
  const others = new Set<AnyTensor>([...Object.values(inputTensors), ...Object.values(outputTensors)]);
  const freed = new Map<number, number>();
  let [held, peak] = [0, 0];
  nodes.forEach((node, index) => {
    for (const tensor of Object.values(node.outputs)) {
      const end = lastUse.get(tensor);
      if (others.has(tensor) || end === undefined) continue;
      held += bytesOf(tensor);
      freed.set(end, (freed.get(end) ?? 0) + bytesOf(tensor));
    }
    peak = Math.max(peak, held);
    held -= freed.get(index) ?? 0;
  });
  return peak;
}

it.each(rematerializations)("is below what the graph of a step holds with rematerialize %s", (rematerialize) => {
  const state = 4 * 4 * parameterCount(model);
  const kept = leastTrainingBytes(model, { ...batch, rematerialize }) - state;
  expect(kept).toBeGreaterThan(0);
  expect(kept).toBeLessThanOrEqual(peakBytes(rematerialize));
});

it("asks for less where layers are computed again", () => {
  const [none, layers] = rematerializations.map((rematerialize) =>
    leastTrainingBytes(model, { ...batch, rematerialize }),
  );
  const tokens = batch.microBatchSize * batch.sequenceLength;
  expect((none ?? 0) - (layers ?? 0)).toBe(4 * tokens * 32 * (6 * 4 - (5 + 4)));
});
