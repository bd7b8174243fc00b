// Values of a traced program. A tensor is one output of one node; nodes point at their inputs and at nothing else, so
// a graph is whatever can be reached from its outputs.

import type { Shape } from "../dim.ts";
import type { Kind } from "../dtype.ts";
import { type DTypeOfKind, specText, type TensorSpec } from "../spec.ts";
import type { Attributes, Op, OpOutputs } from "./op.ts";

/** A traced value. Its kind is in the type; its width is a matter of precision policy. */
export interface Tensor<K extends Kind = "float"> extends TensorSpec<K> {
  /** The node that gives it. */
  readonly node: Node;
  /** Which of the node's outputs it is. */
  readonly output: string;
}

/** A tensor of any kind. */
export type AnyTensor = Tensor<Kind>;

/** True for tensors made by any copy of this package. */
export function isTensor(value: unknown): value is AnyTensor {
  return typeof value === "object" && value !== null && "node" in value && "output" in value && "dtype" in value;
}

let next = 0;

/** One application of an operation. */
export class Node {
  /** Rises with creation, and is above that of every node it reads, whichever copy of the package made that. */
  readonly id: number;
  /** What is applied. */
  readonly op: Op;
  /** What it is applied to, by the operation's names; absent optional inputs are missing. */
  readonly inputs: { readonly [name: string]: AnyTensor };
  /** Settings of this application. */
  readonly attributes: Attributes;
  /** What it gives, by the operation's names. */
  readonly outputs: OpOutputs;
  /** Nodes with different tags are never merged; rematerialisation tags its clones. */
  readonly tag: string | undefined;

  constructor(
    op: Op,
    inputs: { readonly [name: string]: AnyTensor },
    attributes: Attributes,
    outputs: { readonly [name: string]: TensorSpec },
    tag?: string,
  ) {
    this.id = Object.values(inputs).reduce((id, { node }) => Math.max(id, node.id + 1), next);
    next = this.id + 1;
    this.op = op;
    this.inputs = inputs;
    this.attributes = attributes;
    this.tag = tag;
    this.outputs = Object.fromEntries(
      Object.entries(outputs).map(([name, spec]) => [name, new NodeOutput(spec, this, name)]),
    );
  }

  /** The input that backends may overwrite with the output, where the operation is one that works in place. */
  get overwrites(): AnyTensor | undefined {
    return this.op.inPlace === undefined ? undefined : this.inputs[this.op.inPlace];
  }
}

class NodeOutput implements AnyTensor {
  readonly dtype: DTypeOfKind<Kind>;
  readonly shape: Shape;
  readonly node: Node;
  readonly output: string;

  constructor(spec: TensorSpec, node: Node, output: string) {
    this.dtype = spec.dtype;
    this.shape = spec.shape;
    this.node = node;
    this.output = output;
  }

  toString(): string {
    return specText(this);
  }
}
