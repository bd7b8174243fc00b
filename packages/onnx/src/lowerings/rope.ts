import { Dim, elementsOf, type Node, ropeOp, type Shape } from "@sisa/core";
import { lowering } from "../lowering.ts";

/** How the angles lie beside the pairs of x [B,T,H,D]. */
type Angles = "perPosition" | "perRow" | "perHead";

/** Undefined for what RotaryEmbedding cannot take. */
function anglesOf(x: Shape, cos: Shape, sin: Shape): Angles | undefined {
  const [B, T, H] = x;
  if (!B || !T || !H || x.length !== 4 || cos.join() !== sin.join()) return undefined;
  const leading = [Dim.of(1), Dim.of(1), Dim.of(1), ...cos.slice(0, -1)].slice(-3);
  const is = (...sizes: readonly (Dim | number)[]) => sizes.every((size, axis) => leading[axis]?.equals(size));
  if (is(B, T, H)) return "perHead";
  if (is(1, T, 1)) return "perPosition";
  return is(B, T, 1) ? "perRow" : undefined;
}

/** One pass over x instead of eleven. */
export const rope = lowering(
  ropeOp,
  ({ emit, inputs: { x, cos, sin }, specs }) => {
    const { shape } = specs.x;
    const angles = anglesOf(shape, specs.cos.shape, specs.sin.shape);
    const [B = Dim.of(1), T = Dim.of(1), H = Dim.of(1), D = Dim.of(0)] = shape;
    const half = specs.cos.shape.at(-1) ?? Dim.of(0);
    // With angles of its own each head is a position more.
    const positions = angles === "perHead" ? T.times(H) : T;
    const heads = angles === "perHead" ? Dim.of(1) : H;
    const flat = emit.reshape(x, [B, positions, heads.times(D)], shape);
    const settings = { interleaved: 1, num_heads: heads.value ?? 1 };
    const shared = angles === "perPosition";
    const tables = [cos, sin].map((values) => {
      if (!shared) return emit.reshape(values, [B, positions, half], specs.cos.shape);
      const table = emit.reshape(values, [positions, half], specs.cos.shape);
      if (emit.dialect === "onnxruntime") return table;
      return emit.node("Expand", [table, emit.sizes.shape([B, positions, half])]);
    });
    const rotated =
      shared && emit.dialect === "onnxruntime"
        ? emit.microsoft("RotaryEmbedding", [flat, emit.builder.int64(0), ...tables], settings)
        : emit.node("RotaryEmbedding", [flat, ...tables], settings);
    return { value: emit.reshape(rotated, shape, [B, positions, heads.times(D)]) };
  },
  declines,
);

function declines({ inputs: { x, cos, sin } }: Node): boolean {
  if (!x || !cos || !sin) return true;
  const empty = elementsOf(x.shape).equals(0);
  const heads = x.shape[2]?.value;
  return empty || heads === undefined || anglesOf(x.shape, cos.shape, sin.shape) === undefined;
}
