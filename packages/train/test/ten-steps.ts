// Ten steps of the tiny model, with all that came of them, as plain data that can leave a browser.
import type { Backend } from "@sisa/core";
import { stateOf, tinyTrainer } from "./tiny.ts";

/** Losses of the steps, the held-out loss after them, and every parameter and moment in one list. */
export async function tenSteps(backend: Backend): Promise<{ losses: number[]; heldOut: number; parameters: number[] }> {
  await using trainer = await tinyTrainer(backend, { steps: 10 });
  const { records } = await trainer.advance(10);
  const { heldOutLoss } = await trainer.evaluate();
  const parameters = Object.values(await stateOf(trainer)).flatMap((values) => Array.from(values));
  return { losses: records.map(({ loss }) => loss), heldOut: heldOutLoss, parameters };
}
