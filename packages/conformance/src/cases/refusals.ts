// Refusals that families of operations share.

import { type AnyTensor, bool, DTypeError, f32, i32, ShapeError } from "@sisa/core";
import { floatSpec, type Refusal, refusal } from "../case.ts";

/** What every operation on two broadcast tensors refuses. */
export function binaryRefusals(
  name: string,
  apply: (a: AnyTensor, b: AnyTensor) => AnyTensor,
  { integers = true }: { readonly integers?: boolean } = {},
): Refusal[] {
  const kinds = integers ? "float or int" : "float";
  const program = ({ a, b }: { readonly a: AnyTensor; readonly b: AnyTensor }) => apply(a, b);
  return [
    refusal({
      name: "shapes",
      inputs: { a: f32(2, 3), b: f32(2) },
      program,
      error: ShapeError,
      message: `${name}: shapes do not broadcast, got [2,3] and [2]`,
    }),
    refusal({
      name: "symbolic shapes",
      inputs: { a: f32("T"), b: f32("P") },
      program,
      error: ShapeError,
      message: `${name}: shapes do not broadcast, got [T] and [P]`,
    }),
    refusal({
      name: "widths",
      inputs: { a: f32(2), b: floatSpec("bfloat16", [2]) },
      program,
      error: DTypeError,
      message: `${name}: dtypes differ, got float32[2] and bfloat16[2]; cast one of them`,
    }),
    refusal({
      name: "kinds",
      inputs: { a: f32(2), b: i32(2) },
      program,
      error: DTypeError,
      message: `${name}: dtypes differ, got float32[2] and int32[2]; cast one of them`,
    }),
    refusal({
      name: "truth values",
      inputs: { a: bool(2), b: bool(2) },
      program,
      error: DTypeError,
      message: `${name}: a must be ${kinds}, got bool[2]`,
    }),
  ];
}

/** What every operation on one float tensor refuses; `inner` is the operation inside that notices. */
export function unaryRefusals(name: string, apply: (x: AnyTensor) => AnyTensor, inner = ""): Refusal[] {
  return [
    refusal({
      name: "integers",
      inputs: { x: i32(2, "T") },
      program: ({ x }) => apply(x),
      error: DTypeError,
      message: `${name}: ${inner}x must be float, got int32[2,T]`,
    }),
  ];
}
