// A layer of somebody else.
import { add, type Layer, linear, normal, type ParametersOf, type Tensor } from "@sisa/core";
import { cube } from "./cube.ts";

/** y = x + (W x)^3, for x [B,M]. */
export class CubicLayer implements Layer {
  readonly parameters;
  constructor(width: number) {
    this.parameters = { weight: normal([width, width], 0.3) };
  }
  forward(p: ParametersOf<this>, x: Tensor): Tensor {
    return add(x, cube(linear(x, p.weight)));
  }
}
