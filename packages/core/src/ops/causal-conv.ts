import { Dim } from "../dim.ts";
import { GraphError, ShapeError } from "../errors.ts";
import { apply, type DefinedOp, defineComposite, expectKind, expectShape } from "../graph/op.ts";
import type { Tensor } from "../graph/tensor.ts";
import { add } from "./add.ts";
import { concat } from "./concat.ts";
import { mul } from "./mul.ts";
import { pad } from "./pad.ts";
import { reshape } from "./reshape.ts";
import { slice } from "./slice.ts";
import { sum } from "./sum.ts";
import { transpose } from "./transpose.ts";

interface CausalConvInputs {
  readonly [name: string]: Tensor | undefined;
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly bias?: Tensor | undefined;
  readonly before?: Tensor | undefined;
}

/** Row w of a [W,C] matrix, [C]. */
function row(matrix: Tensor, w: number): Tensor {
  return reshape(slice(matrix, { axis: 0, start: w, end: w + 1 }), [matrix.shape[1] ?? 1]);
}

function windows({ x, weight, before }: CausalConvInputs): readonly Tensor[] {
  const width = weight.shape[1]?.value ?? 1;
  const T = x.shape[1] ?? Dim.of(0);
  const whole = before ? concat([before, x], { axis: 1 }) : pad(x, { axis: 1, before: width - 1 });
  return Array.from({ length: width }, (_, w) => slice(whole, { axis: 1, start: w, end: T.plus(w) }));
}

function total(terms: readonly Tensor[]): Tensor {
  return terms.reduce((a, b) => add(a, b));
}

export const causalConvOp: DefinedOp<
  "causalConv",
  CausalConvInputs,
  Record<string, never>,
  { value: Tensor }
> = /* @__PURE__ */ defineComposite({
  name: "causalConv",
  inputs: ["x", "weight", "bias?", "before?"],
  check({ x, weight, bias, before }) {
    for (const [name, tensor] of Object.entries({ x, weight })) expectKind(name, tensor, "float");
    const sizes = expectShape("weight", weight, ["C", "W"], expectShape("x", x, ["B", "T", "C"]));
    const width = sizes.W?.value;
    if (!width) throw new ShapeError(`weight must have a fixed width W >= 1, got ${sizes.W}`);
    if (bias) expectShape("bias", bias, ["C"], sizes);
    if (before) expectShape("before", before, ["B", "W-1", "C"], { ...sizes, "W-1": Dim.of(width - 1) });
  },
  compose(inputs) {
    const weight = transpose(inputs.weight, [1, 0]);
    const value = total(windows(inputs).map((window, w) => mul(window, row(weight, w))));
    return { value: inputs.bias ? add(value, inputs.bias) : value };
  },
  vjp({ inputs, gradients, needs }) {
    const gradient = gradients.value;
    if (inputs.before) throw new GraphError("causalConv: has no gradient where it continues from rows before");
    if (gradient === undefined) return {};
    const { x, weight, bias } = inputs;
    const width = weight.shape[1]?.value ?? 1;
    const T = x.shape[1] ?? Dim.of(0);
    const rows = transpose(weight, [1, 0]);
    const later = pad(gradient, { axis: 1, after: width - 1 });
    const taps = (w: number) => slice(later, { axis: 1, start: width - 1 - w, end: T.plus(width - 1 - w) });
    const byTap = () =>
      windows(inputs).map((window) => reshape(sum(mul(window, gradient), { axes: [0, 1] }), [1, x.shape[2] ?? 1]));
    return {
      x: needs.x ? total(Array.from({ length: width }, (_, w) => mul(taps(w), row(rows, w)))) : undefined,
      weight: needs.weight ? transpose(concat(byTap(), { axis: 0 }), [1, 0]) : undefined,
      bias: bias && needs.bias ? sum(gradient, { axes: [0, 1] }) : undefined,
    };
  },
});

/**
 * Convolution over time, each channel with its own kernel, that sees only rows before and the row itself.
 * y_t = bias + sum_w weight_w x_{t - (W - 1) + w}
 *
 * @param inputs.x      [B,T,C]
 * @param inputs.weight [C,W]; its last column weighs the row itself
 * @param inputs.bias   [C], optional
 * @param inputs.before [B,W-1,C] rows before the first; default zeros
 * @returns [B,T,C]
 * @throws ShapeError where sizes differ or W is not bound; DTypeError unless x and weight are floats
 */
export function causalConv(inputs: {
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly bias?: Tensor | undefined;
  readonly before?: Tensor | undefined;
}): Tensor {
  return apply(causalConvOp, { ...inputs }, {}).value;
}
