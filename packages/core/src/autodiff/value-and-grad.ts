// Reverse-mode differentiation of graphs. It asks operations for their rules and knows none by name.

import { sameShape } from "../dim.ts";
import { kindOf } from "../dtype.ts";
import { GraphError } from "../errors.ts";
import { Graph, type GraphInputs, type GraphOutputs } from "../graph/graph.ts";
import { expandComposites } from "../graph/passes.ts";
import type { AnyTensor, Node, Tensor } from "../graph/tensor.ts";
import { verify } from "../graph/verify.ts";
import { add } from "../ops/add.ts";
import { broadcastTo } from "../ops/broadcast-to.ts";
import { cast, gradientDType } from "../ops/cast.ts";
import { constant } from "../ops/constant.ts";
import { specText, type TensorSpec } from "../spec.ts";

type WithGradients<I extends GraphInputs, O extends GraphOutputs, W extends keyof I & string> = O & {
  readonly [N in W as `grad.${N}`]: I[N];
};

/**
 * A graph that gives, beside everything the given one gives, the gradients of its scalar output `value` by the inputs
 * named in `wrt`, as `grad.<input>`, each in its input's dtype.
 *
 * @param options.wrt names of the inputs, floats
 * @throws GraphError where `value` is missing or not a scalar, an input is unknown or not a float, an output has the
 *   name of a gradient already, or an operation on the way has no gradient (its reason is told)
 */
export function valueAndGrad<
  I extends GraphInputs,
  O extends GraphOutputs & { readonly value: TensorSpec },
  const W extends readonly (keyof I & string)[],
>(graph: Graph<I, O>, options: { readonly wrt: W }): Graph<I, WithGradients<I, O, W[number]>> {
  const { wrt } = options;
  const expanded = expandComposites(graph, (op) => op.vjp === undefined);
  const loss = expanded.outputTensors.value;
  if (loss === undefined || loss.shape.length !== 0 || kindOf(loss.dtype) !== "float") {
    throw new GraphError(`valueAndGrad: expected a scalar float output "value", got ${loss ? specText(loss) : "none"}`);
  }
  const targets = wrt.map((name) => {
    const tensor = expanded.inputTensors[name];
    if (tensor === undefined) {
      throw new GraphError(
        `valueAndGrad: no input is named "${name}"; this graph has ${Object.keys(graph.inputs).join(", ")}`,
      );
    }
    if (kindOf(tensor.dtype) !== "float") {
      throw new GraphError(`valueAndGrad: input "${name}" is ${specText(tensor)}; only floats have gradients`);
    }
    if (expanded.outputTensors[`grad.${name}`] !== undefined) {
      throw new GraphError(`valueAndGrad: the graph already has an output "grad.${name}"; leave it out or rename it`);
    }
    return [name, tensor] as const;
  });

  const gradients = backward(expanded.nodes, loss, new Set(targets.map(([, tensor]) => tensor)));
  const outputs: Record<string, AnyTensor> = { ...expanded.outputTensors };
  for (const [name, tensor] of targets) {
    outputs[`grad.${name}`] = gradients.get(tensor) ?? zeros(tensor);
  }
  const result = new Graph(expanded.inputTensors, outputs, expanded.nodes);
  verify(result);
  return result as unknown as Graph<I, WithGradients<I, O, W[number]>>;
}

/** Gradients of a scalar by the wanted tensors. */
function backward(nodes: readonly Node[], loss: AnyTensor, wanted: ReadonlySet<AnyTensor>): Map<AnyTensor, Tensor> {
  const depends = new Set<AnyTensor>(wanted);
  for (const node of nodes) {
    if (!Object.values(node.inputs).some((tensor) => depends.has(tensor))) continue;
    for (const tensor of Object.values(node.outputs)) if (kindOf(tensor.dtype) === "float") depends.add(tensor);
  }
  const gradients = new Map<AnyTensor, Tensor>();
  if (!depends.has(loss)) return gradients;
  gradients.set(loss, constant(1, loss.dtype) as Tensor);

  for (const node of nodes.toReversed()) {
    const incoming = Object.fromEntries(
      Object.entries(node.outputs).flatMap(([name, tensor]) => {
        const gradient = gradients.get(tensor);
        return gradient === undefined ? [] : [[name, gradient]];
      }),
    );
    const needs = Object.fromEntries(
      Object.entries(node.inputs).map(([name, tensor]) => [
        name,
        depends.has(tensor) && kindOf(tensor.dtype) === "float",
      ]),
    );
    if (Object.keys(incoming).length === 0 || !Object.values(needs).includes(true)) continue;
    const { vjp } = node.op;
    if (typeof vjp !== "function") {
      throw new GraphError(`valueAndGrad: ${node.op.name} has no gradient: ${vjp?.reason ?? "no rule"}`);
    }
    const results = vjp({
      inputs: node.inputs,
      attributes: node.attributes,
      outputs: node.outputs,
      gradients: incoming,
      needs,
    });
    for (const [name, tensor] of Object.entries(node.inputs)) {
      const gradient = results[name];
      if (!needs[name]) continue;
      if (gradient === undefined) {
        throw new GraphError(
          `valueAndGrad: ${node.op.name} gave no gradient for its input "${name}" ${specText(tensor)}`,
        );
      }
      if (!sameShape(gradient.shape, tensor.shape)) {
        throw new GraphError(
          `valueAndGrad: ${node.op.name} gave a gradient ${specText(gradient)} for its input "${name}" ${specText(tensor)}`,
        );
      }
      const own = cast(gradient, gradientDType(tensor)) as Tensor;
      const seen = gradients.get(tensor);
      gradients.set(tensor, seen === undefined ? own : add(seen, own));
    }
  }
  return gradients;
}

function zeros({ dtype, shape }: AnyTensor): AnyTensor {
  return broadcastTo(constant(0, dtype), shape);
}
