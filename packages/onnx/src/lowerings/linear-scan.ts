import { linearScanOp } from "@sisa/core";
import { lowering } from "../lowering.ts";

/** A Scan over time; everything else does without loops. */
export const linearScan = lowering(linearScanOp, ({ emit, inputs: { a, b, h0 }, specs, attributes: { reverse } }) => {
  const { builder, sizes } = emit;
  const shape = specs.a.shape.toSpliced(1, 1);
  const axes = shape.map((size) => size.value ?? size.toString());
  const initial = h0 ?? emit.node("Expand", [builder.float(0), sizes.shape(shape)]);

  const body = builder.subgraph();
  const [before, factor, added] = ["before", "factor", "added"].map((name) =>
    body.input(`${a}.${b}.${name}`, "float32", axes),
  );
  const after = body.node("Add", [body.node("Mul", [factor, before]), added]);
  const row = body.node("Identity", [after]);
  body.output(after, "float32", axes);
  body.output(row, "float32", axes);

  const direction = reverse ? 1 : 0;
  const [, states] = emit.nodes(2, "Scan", [initial, a, b], {
    body: { graph: body },
    num_scan_inputs: 2,
    scan_input_axes: [1, 1],
    scan_input_directions: [direction, direction],
    scan_output_axes: [1],
    scan_output_directions: [direction],
  });
  return states === undefined ? {} : { value: states };
});
