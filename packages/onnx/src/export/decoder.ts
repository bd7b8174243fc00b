// The decoders that are exported: the model's own decode graph, rewritten to the caches, masks and names of other runtimes.

import {
  type AnyTensor,
  add,
  and,
  applyOp,
  attentionOp,
  bindAttributes,
  broadcastTo,
  cacheWriteOp,
  cast,
  concat,
  constant,
  constantOp,
  Dim,
  decayAttentionOp,
  dim,
  dimSize,
  equal,
  expandComposites,
  Graph,
  GraphError,
  gather,
  gatherOp,
  i32,
  inputOp,
  inputTensor,
  iota,
  type LanguageModel,
  lessEqual,
  matmul,
  maximum,
  mul,
  type Node,
  type OpOutputs,
  reshape,
  shapeText,
  sigmoidDecayAttentionOp,
  simplify,
  slice,
  softmax,
  ssmPrepare,
  ssmPrepareOp,
  sub,
  type Tensor,
  type TensorSpec,
  takeRow,
  takeRowOp,
  transpose,
  transposeOp,
  where,
} from "@sisa/core";
import { lastRow, writeRows } from "./cache-ops.ts";
import { portable } from "./portable.ts";

/** What axes are called in exported files. */
export const axisNames: { readonly [size: string]: string } = {
  B: "batch_size",
  T: "sequence_length",
  P: "past_sequence_length",
  "P + T": "total_sequence_length",
  C: "capacity",
};

/** Added to the score of a key that is not seen. Finite, since a row that sees nothing must not become NaN. */
const unseen = -3e38;

type Inputs = { readonly [name: string]: AnyTensor };

/** How one of the decoders treats positions and caches. */
interface Form {
  /** Inputs of the file that are not caches. */
  readonly inputs: Inputs;
  /** int32 [B] row of the caches that the first token is written to. */
  readonly start: Tensor<"int">;
  /** int32 [B,T] positions of the tokens in their rows. */
  readonly positions: Tensor<"int">;
  /** [B,1,T,keys] what is added to scores. */
  readonly mask: Tensor;
  /** [B,T] zero for tokens that are padding; undefined where there is none in front of others. */
  readonly present?: Tensor;
  /** Rows of the caches that come in. */
  readonly rows: Dim;
  /** Rows of the caches that attention reads. */
  readonly keys: Dim;
  write(cache: Tensor, update: Tensor): Tensor;
  /** The row before `start`; anything where there is none. */
  rowBefore(cache: Tensor): Tensor;
  /** Of hidden states [B,T,M] those that logits are asked for. */
  pick(hidden: Tensor): Tensor;
}

/**
 * A decoder whose caches grow: they come in with P rows and go out with P + T.
 *
 * Inputs: `input_ids`, `position_ids` int32 [B,T]; `attention_mask` int32 [B,P+T], zero for padding, which may stand
 * anywhere; `past_key_values.N.*` [B,H,P,...]; all parameters.
 * Outputs: `logits` [B,T,V]; `present.N.*` [B,H,P+T,...].
 */
export function growingDecoder(model: LanguageModel): Graph {
  const [B, T, P] = [dim("B"), dim("T"), dim("P")];
  const total = P.plus(T);
  const ids = inputTensor("input_ids", i32(B, T)) as Tensor<"int">;
  const attentionMask = inputTensor("attention_mask", i32(B, total)) as Tensor<"int">;
  const positions = inputTensor("position_ids", i32(B, T)) as Tensor<"int">;
  const past = sub<"int">(dimSize(attentionMask, 1), dimSize(ids, 1));
  const kept = equal<"int">(attentionMask, 1);
  const causal = lessEqual<"int">(iota(total), add<"int">(reshape(iota(T), [T, 1]), past)); // [T,P+T]
  const seen = and(reshape(causal, [1, 1, T, total]), reshape(kept, [B, 1, 1, total]));
  return decoder(model, {
    inputs: { input_ids: ids, attention_mask: attentionMask, position_ids: positions },
    start: broadcastTo(reshape(past, [1]), [B]),
    positions,
    mask: maskOf(seen),
    present: cast(slice(attentionMask, { axis: 1, start: P }), "float32"),
    rows: P,
    keys: total,
    write: (cache, update) => concat([cache, update], { axis: 2 }),
    rowBefore: lastRow,
    pick: (hidden) => hidden,
  });
}

/**
 * A decoder whose caches have a fixed capacity and are written in place.
 *
 * Inputs: `input_ids` int32 [B,T]; `cache_lengths` int32 [B], how many tokens each row's caches hold; `logits_indices`
 * int32 [B], which of the T tokens the logits are for, so that shorter rows can be padded at their ends;
 * `past_key_values.N.*` [B,H,C,...]; all parameters.
 * Outputs: `logits` [B,V]; `present.N.*` of the same shapes as the caches.
 */
export function fixedDecoder(model: LanguageModel): Graph {
  const [B, T, C] = [dim("B"), dim("T"), dim("C")];
  const ids = inputTensor("input_ids", i32(B, T)) as Tensor<"int">;
  const start = inputTensor("cache_lengths", i32(B)) as Tensor<"int">;
  const last = inputTensor("logits_indices", i32(B)) as Tensor<"int">;
  const positions = add<"int">(reshape(start, [B, 1]), iota(T));
  const seen = lessEqual<"int">(iota(C), reshape(positions, [B, 1, T, 1]));
  return decoder(model, {
    inputs: { input_ids: ids, cache_lengths: start, logits_indices: last },
    start,
    positions,
    mask: maskOf(seen),
    rows: C,
    keys: C,
    write: (cache, update) => writeRows(cache, update, start),
    rowBefore(cache) {
      const [, H = Dim.of(0), , ...rest] = cache.shape;
      const flat = reshape(cache, [B.times(H), C, ...rest]);
      const before = maximum<"int">(sub<"int">(start, 1), 0);
      const row = reshape(broadcastTo(reshape(before, [B, 1]), [B, H]), [B.times(H)]);
      return reshape(takeRow(flat, row), [B, H, ...rest]);
    },
    pick: (hidden) => takeRow(hidden, last),
  });
}

/** Zero for keys that a query sees. */
function maskOf(seen: Tensor<"bool">): Tensor {
  return where(seen, constant(0), constant(unseen));
}

/** Name of a cache in files: that of layer N's entry after `past_key_values.` or `present.`. */
function fileName(prefix: "past_key_values" | "present", cache: string): string {
  const [, layer, entry] = /^layers\.(\d+)\.(.+)$/.exec(cache) ?? [];
  if (layer === undefined) throw new GraphError(`export: expected a cache named layers.N.<entry>, got "${cache}"`);
  return `${prefix}.${layer}.${entry}`;
}

/** The decode graph with everything that a form changes about it. */
function decoder(model: LanguageModel, form: Form): Graph {
  const decode = expandComposites(
    model.decodeGraph() as unknown as Graph,
    ({ name }) => name === decayAttentionOp.name,
  );
  if (model.recurrentKinds.length > 0 || model.prefix.length > 0) {
    const what = model.prefix.length > 0 ? "meta tokens" : `the states of ${model.recurrentKinds.join(", ")} layers`;
    throw new GraphError(`export: decoders with ${what} are not built; the model can be exported as one full pass`);
  }
  if (decode.nodes.some(({ op }) => op === sigmoidDecayAttentionOp)) {
    throw new GraphError(
      'export: decoders of SISA layers with weights "sigmoid" are not built; the model can be exported as one full pass',
    );
  }
  const inputs: Record<string, AnyTensor> = { ...form.inputs };
  // What takes the place of each tensor of the decode graph.
  const replaced = new Map<AnyTensor, AnyTensor>();
  const replacementOf = (tensor: AnyTensor | undefined): AnyTensor => {
    const found = tensor && replaced.get(tensor);
    if (found === undefined) throw new GraphError("export: the decode graph is not as expected");
    return found;
  };
  const { ids, start, last, ...others } = decode.inputTensors;
  const cacheSpecs = model.cacheSpecs("B", form.rows);
  for (const [name, tensor] of Object.entries(others)) {
    const spec = cacheSpecs[name];
    if (spec === undefined) {
      inputs[name] = tensor;
      replaced.set(tensor, tensor);
    } else {
      const fed = fileName("past_key_values", name);
      inputs[fed] = inputTensor(fed, { dtype: spec.dtype, shape: headsFirst(name, spec, form.rows) });
      replaced.set(tensor, swapHeads(inputs[fed] as Tensor));
    }
  }
  if (ids) replaced.set(ids, form.inputs.input_ids as AnyTensor);
  // Where logits are read is up to the form; see `pick`.
  for (const tensor of [start, last]) if (tensor) replaced.set(tensor, form.start);

  for (const node of decode.nodes) {
    const given = Object.fromEntries(
      Object.entries(node.inputs).map(([name, tensor]) => [name, replacementOf(tensor)]),
    );
    const outputs =
      node.op === takeRowOp && node.inputs.x?.node.op !== inputOp
        ? { value: form.pick(given.x as Tensor) }
        : translate(node, given, form);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const output = outputs[name];
      if (output !== undefined) replaced.set(tensor, output);
    }
  }
  const outputs: Record<string, AnyTensor> = { logits: replacementOf(decode.outputTensors.logits) };
  for (const name of Object.keys(cacheSpecs)) {
    outputs[fileName("present", name)] = swapHeads(replacementOf(decode.outputTensors[name]) as Tensor);
  }
  const whole = expandComposites(new Graph(inputs, outputs), ({ name }) => name === ssmPrepareOp.name);
  return simplify(portable(whole, model.config));
}

/** One node of the decode graph in the exported one. */
function translate(node: Node, inputs: { readonly [name: string]: AnyTensor }, form: Form): OpOutputs {
  const given = inputs as { readonly [name: string]: Tensor };
  const { x, cache, update, table } = given;
  switch (node.op) {
    case cacheWriteOp:
      if (cache && update) return { value: swapHeads(form.write(swapHeads(cache), swapHeads(update))) };
      break;
    case takeRowOp:
      if (x && node.inputs.x?.node.op === inputOp) return { value: form.rowBefore(swapHeads(x)) };
      break;
    case gatherOp:
      // Of all tables only that of rotations by position is not a parameter.
      if (table && node.inputs.table?.node.op === constantOp) return { value: gather(table, form.positions) };
      break;
    case ssmPrepareOp:
      return ssmPrepareOfPresent(given, form.present);
    case attentionOp:
      return { value: attend(given, node.attributes.scale as number, form.mask) };
    case transposeOp:
      if (x) return { value: swapped(x, node.attributes.permutation as readonly number[]) };
  }
  return applyOp(node.op, inputs, bindAttributes(node.attributes, { C: form.keys }), node.tag);
}

/** Padding neither decays nor turns what comes after it. */
function ssmPrepareOfPresent(inputs: { readonly [name: string]: Tensor }, present: Tensor | undefined): OpOutputs {
  const { c, b, logDecay, phase, ...before } = inputs;
  if (!c || !b || !logDecay || !phase) throw new GraphError("export: ssmPrepare lacks inputs");
  const kept = (values: Tensor) =>
    present ? mul(values, reshape(present, [...present.shape, ...values.shape.slice(2).map(() => 1)])) : values;
  return ssmPrepare({ c, b, logDecay: kept(logDecay), phase: kept(phase), ...before });
}

/** Attention in operations that every provider has a kernel for. The mask hides what comes later, too. */
function attend({ q, k, v, bias }: { readonly [name: string]: Tensor }, scale: number, mask: Tensor): Tensor {
  if (!q || !k || !v) throw new GraphError("export: attention lacks inputs");
  const product = mul(matmul(swapHeads(q), swapHeads(k), { transposeB: true }), scale);
  const weights = softmax(add(bias ? add(product, bias) : product, mask));
  return swapHeads(matmul(weights, swapHeads(v)));
}

/** The shape of a cache with heads in front of time. @throws GraphError for one that is not a row per token */
function headsFirst(name: string, { shape }: TensorSpec, rows: Dim): readonly Dim[] {
  const [B, time, H, ...rest] = shape;
  if (!B || !H || !time?.equals(rows)) {
    throw new GraphError(`export: cache "${name}" is ${shapeText(shape)}; only caches of a row per token are exported`);
  }
  return [B, H, time, ...rest];
}

/** [B,T,H,...] to [B,H,T,...] and back. */
function swapHeads(x: Tensor): Tensor {
  return swapped(x, [0, 2, 1, ...x.shape.slice(3).map((_, axis) => axis + 3)]);
}

/** Transposes, unless that undoes what was transposed before. */
function swapped(x: Tensor, permutation: readonly number[]): Tensor {
  const { op, inputs, attributes } = x.node;
  const before = attributes.permutation as readonly number[];
  const isUndone = op === transposeOp && permutation.every((axis, place) => before[axis] === place);
  return isUndone ? (inputs.x as Tensor) : transpose(x, permutation);
}
