// A model of somebody else: layers under prefixes, and a loss.
import {
  f32,
  type GraphInputs,
  type Layer,
  linear,
  mean,
  mount,
  normal,
  type Parameters,
  parameterSpecs,
  parametersUnder,
  sub,
  type Tensor,
  trace,
} from "@sisa/core";
import { fourth } from "./cube.ts";
import { CubicLayer } from "./cubic-layer.ts";

/** Predicts one number from `width` numbers. */
export class CubicModel implements Layer {
  readonly parameters: Parameters;
  readonly width: number;
  readonly #layers: readonly CubicLayer[];
  readonly #head: Layer;

  constructor(sizes: { readonly width: number; readonly layers: number }) {
    this.width = sizes.width;
    this.#layers = Array.from({ length: sizes.layers }, () => new CubicLayer(sizes.width));
    this.#head = { parameters: { "head.weight": normal([1, sizes.width], 0.5) } };
    const mounted = this.#layers.map((layer, index) => mount(`layers.${index}.`, layer));
    this.parameters = { ...Object.assign({}, ...mounted), ...this.#head.parameters };
  }

  /** Inputs `x` [B,M], `target` [B,1] and all parameters; output `value`, the mean fourth power of what it is off by. */
  lossGraph() {
    const inputs: GraphInputs = { x: f32("B", this.width), target: f32("B", 1), ...parameterSpecs(this) };
    return trace(inputs, (tensors) => {
      const { x, target, ...p } = tensors as { readonly x: Tensor; readonly target: Tensor };
      const hidden = this.#layers.reduce(
        (h, layer, index) => layer.forward(parametersUnder(p, `layers.${index}.`, layer), h),
        x,
      );
      const { "head.weight": head } = parametersUnder(p, "", this.#head);
      return mean(fourth(sub(linear(hidden, head as Tensor), target)));
    });
  }
}
