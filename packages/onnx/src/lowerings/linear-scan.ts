import { Dim, linearScanOp } from "@sisa/core";
import { type Emitter, lowering } from "../lowering.ts";
import type { Value } from "../model-proto.ts";
import { emitPad } from "./shapes.ts";

/**
 * A Scan over time; everything else does without loops. A Scan of no steps ends the process, so a length that is not
 * known gets one step more, after all others.
 */
export const linearScan = lowering(linearScanOp, ({ emit, inputs: { a, b, h0 }, specs, attributes, outputs }) => {
  const { reverse } = attributes;
  const { builder, sizes } = emit;
  const { shape } = outputs.value;
  const state = shape.toSpliced(1, 1);
  const zero = builder.float(0);
  if (shape.some((size) => size.equals(0))) return { value: emit.node("Expand", [zero, sizes.shape(shape)]) };
  const initial = h0 ?? emit.node("Expand", [zero, sizes.shape(state)]);
  const length = specs.a.shape[1] ?? Dim.of(1);
  if (length.value !== undefined) return { value: scan(emit, initial, a, b, state, reverse) };

  const [before, after] = reverse ? [1, 0] : [0, 1];
  const longer = (x: Value) => emitPad(emit, x, 1, Dim.of(before), Dim.of(after));
  const states = scan(emit, initial, longer(a), longer(b), state, reverse);
  return { value: emit.slice(states, 1, Dim.of(before), length.plus(before)) };
});

function scan(emit: Emitter, initial: Value, a: Value, b: Value, state: readonly Dim[], reverse: boolean): Value {
  const axes = state.map((size) => size.value ?? size.toString());
  const body = emit.builder.subgraph();
  const [before, factor, added] = [initial, a, b].map((_, index) =>
    body.input(`${emit.label}.${index}`, "float32", axes),
  );
  const after = body.node("Add", [body.node("Mul", [factor, before]), added]);
  const row = body.node("Identity", [after]);
  body.output(after, "float32", axes);
  body.output(row, "float32", axes);

  const direction = reverse ? 1 : 0;
  const [, states = initial] = emit.nodes(2, "Scan", [initial, a, b], {
    body: { graph: body },
    num_scan_inputs: 2,
    scan_input_axes: [1, 1],
    scan_input_directions: [direction, direction],
    scan_output_axes: [1],
    scan_output_directions: [direction],
  });
  return states;
}
