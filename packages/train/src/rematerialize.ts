// What a training step computes twice to hold less: the policies that the setting `rematerialize` names.
import { type Graph, type Node, rematerialize, sameShape } from "@sisa/core";

/** `none` keeps every value that the backward pass reads; `layers` keeps the residual stream alone. */
export const rematerializations = ["none", "layers"] as const;
export type Rematerialization = (typeof rematerializations)[number];

/** The embedding is a lookup in a parameter; the loss has its gradients ready when the forward pass ends. */
const kept: ReadonlySet<string> = new Set(["gather", "linearCrossEntropy"]);

/** A sum of two activations [B,T,M]: with them kept, a layer is computed again from where it begins and no further. */
function isResidual({ op, inputs, outputs }: Node): boolean {
  const sum = outputs.value;
  if (op.name !== "add" || sum?.shape.length !== 3) return false;
  return Object.values(inputs).every(({ shape }) => sameShape(shape, sum.shape));
}

/** Gradients with what the policy names computed again in the backward pass. @param gradients with the loss as `value` */
export function rematerialized(gradients: Graph, rematerialization: Rematerialization): Graph {
  if (rematerialization === "none") return gradients;
  return rematerialize(gradients, {
    boundary: "value",
    policy: (node) => !kept.has(node.op.name) && !isResidual(node),
  });
}
