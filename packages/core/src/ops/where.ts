import type { Kind } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { apply, definePrimitive, expectKind, expectSameDType } from "../graph/op.ts";
import type { AnyTensor, Tensor } from "../graph/tensor.ts";
import { constant } from "./constant.ts";
import { broadcastIndex, broadcastShapes, type Operand, type SecondOperand, sumTo } from "./elementwise.ts";

export const whereOp = /* @__PURE__ */ definePrimitive<
  "where",
  { readonly condition: Tensor<"bool">; readonly a: Tensor<Kind>; readonly b: Tensor<Kind> },
  Record<string, never>,
  { value: Tensor<Kind> }
>({
  name: "where",
  inputs: ["condition", "a", "b"],
  elementwise: true,
  infer({ condition, a, b }) {
    expectKind("condition", condition, "bool");
    expectSameDType(a, b);
    const shape = broadcastShapes(condition.shape, broadcastShapes(a.shape, b.shape));
    return { value: { dtype: a.dtype, shape } };
  },
  reference({ condition, a, b }, _attributes, { value }) {
    const indexCondition = broadcastIndex(condition.shape, value.shape);
    const indexA = broadcastIndex(a.shape, value.shape);
    const indexB = broadcastIndex(b.shape, value.shape);
    for (let i = 0; i < value.data.length; i++) {
      value.data[i] = (condition.data[indexCondition(i)] ? a.data[indexA(i)] : b.data[indexB(i)]) ?? 0;
    }
  },
  vjp({ inputs: { condition, a, b }, gradients, needs }) {
    const gradient = gradients.value;
    if (gradient === undefined) return {};
    return {
      a: needs.a ? sumTo(where(condition, gradient, 0), a.shape) : undefined,
      b: needs.b ? sumTo(where(condition, 0, gradient), b.shape) : undefined,
    };
  },
});

/**
 * a where the condition holds, else b. What is not chosen has no influence, NaN included.
 *
 * @param condition bool [...]
 * @param a [...] of any dtype, or a number, which takes the dtype of b
 * @param b [...] of the same dtype, or a number
 * @returns [...], the shape that all three broadcast to
 * @throws ShapeError where the shapes do not broadcast or a and b are numbers; DTypeError where the dtypes differ
 */
export function where<K extends Kind = "float">(
  condition: Tensor<"bool">,
  a: Operand<K>,
  b: SecondOperand<K>,
): Tensor<K> {
  const like = typeof a === "number" ? b : a;
  if (typeof like === "number") throw new ShapeError("where: expected at least one tensor, got two numbers");
  const tensor = (operand: AnyTensor | Operand<K>) =>
    typeof operand === "number" ? constant(operand, like.dtype) : operand;
  return apply(whereOp, { condition, a: tensor(a), b: tensor(b) }, {}).value as Tensor<K>;
}
