// The decoders that are exported: the model's own decode graph, rewritten to the caches, masks and names of other runtimes.

import {
  type AnyTensor,
  add,
  alibiSlopes,
  and,
  applyOp,
  attentionOp,
  bindAttributes,
  blockCumulativeSumOp,
  broadcastTo,
  cacheWriteOp,
  cast,
  concat,
  constant,
  constantOp,
  cumulativeSum,
  Dim,
  decayAttentionOp,
  decaySums,
  dim,
  dimSize,
  equal,
  exp,
  expandComposites,
  forgettingAttentionOp,
  Graph,
  GraphError,
  gather,
  gatherOp,
  i32,
  inputOp,
  inputTensor,
  iota,
  type LanguageModel,
  less,
  lessEqual,
  lessEqualOp,
  max,
  maximum,
  minimum,
  mul,
  type Node,
  neg,
  type OpOutputs,
  or,
  pickOutputs,
  reshape,
  rmsNormOp,
  rotateOp,
  type SisaForm,
  sdpaClamp,
  sigmoidDecayAttentionOp,
  simplify,
  slice,
  sqrt,
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
import { lastRow, maskedAttention, writeRows } from "./decoder-ops.ts";
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
interface Layout {
  /** Inputs of the file that are not caches. */
  readonly inputs: Inputs;
  /** int32 [B] row of the caches that the first token is written to. */
  readonly start: Tensor<"int">;
  /** int32 [B] the last of the T tokens that is no padding; -1 where all are. */
  readonly last: Tensor<"int">;
  /** int32 [B,T] positions of the tokens in their rows. */
  readonly positions: Tensor<"int">;
  /** int32 [B or 1,keys] the same of keys. */
  readonly keyPositions: Tensor<"int">;
  /** [B,keys] false for keys that are padding, or not written yet. */
  readonly isKey: Tensor<"bool">;
  /** [B,1,T,keys] what is added to scores. */
  readonly mask: Tensor;
  /** [B,T] false for tokens that are padding; undefined where there is none in front of others. */
  readonly isToken?: Tensor<"bool">;
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
 * anywhere, but in front only before all else where layers keep states; `past_key_values.N.*` [B,H,P,...]; states
 * `past_conv.N`, `past_ssm.N` and others, [B,...]; all parameters.
 * Outputs: `logits` [B,T,V]; `present.N.*` [B,H,P+T,...]; states of the same shapes.
 *
 * @param form of SISA; `sdpa` is one stock Attention call per layer
 * @throws GraphError for layers that cannot be exported
 */
export function growingDecoder(model: LanguageModel, form: SisaForm = "exact"): Graph {
  const [B, T, P] = [dim("B"), dim("T"), dim("P")];
  const total = P.plus(T);
  const ids = inputTensor("input_ids", i32(B, T)) as Tensor<"int">;
  const attentionMask = inputTensor("attention_mask", i32(B, total)) as Tensor<"int">;
  const positions = inputTensor("position_ids", i32(B, T)) as Tensor<"int">;
  const past = sub<"int">(dimSize(attentionMask, 1), dimSize(ids, 1));
  const kept = equal<"int">(attentionMask, 1);
  const causal = lessEqual<"int">(iota(total), add<"int">(reshape(iota(T), [T, 1]), past)); // [T,P+T]
  const seen = and(reshape(causal, [1, 1, T, total]), reshape(kept, [B, 1, 1, total]));
  const counts = cumulativeSum(cast(attentionMask, "float32"), { axis: 1 });
  const isToken = equal<"int">(slice(attentionMask, { axis: 1, start: P }), 1);
  const places = where(isToken, cast(iota(T), "float32"), -1); // [B,T]
  return decoder(model, form, {
    inputs: { input_ids: ids, attention_mask: attentionMask, position_ids: positions },
    start: broadcastTo(reshape(past, [1]), [B]),
    last: cast(max(places, { axes: [1] }), "int32"),
    positions,
    keyPositions: sub<"int">(cast(counts, "int32"), 1),
    isKey: kept,
    mask: maskOf(seen),
    isToken,
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
 * Outputs: `logits` [B,V]; `present.N.*` of the same shapes as the caches. States as with `growingDecoder`.
 *
 * @param form of SISA; `sdpa` is one stock Attention call per layer
 * @throws GraphError for layers that cannot be exported
 */
export function fixedDecoder(model: LanguageModel, form: SisaForm = "exact"): Graph {
  const [B, T, C] = [dim("B"), dim("T"), dim("C")];
  const ids = inputTensor("input_ids", i32(B, T)) as Tensor<"int">;
  const start = inputTensor("cache_lengths", i32(B)) as Tensor<"int">;
  const last = inputTensor("logits_indices", i32(B)) as Tensor<"int">;
  const positions = add<"int">(reshape(start, [B, 1]), iota(T));
  const seen = lessEqual<"int">(iota(C), reshape(positions, [B, 1, T, 1]));
  return decoder(model, form, {
    inputs: { input_ids: ids, cache_lengths: start, logits_indices: last },
    start,
    last,
    positions,
    keyPositions: reshape(iota(C), [1, C]),
    isKey: lessEqual<"int">(iota(C), reshape(add<"int">(start, last), [B, 1])),
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

/** States go by the names that other runtimes have for them. */
const stateNames: { readonly [entry: string]: string | undefined } = { conv: "conv", state: "ssm" };

/** Names of a cache in files, by its name in the decode graph. */
function fileNames(cache: string): { readonly past: string; readonly present: string } {
  const [, layer, entry = ""] = /^layers\.(\d+)\.(.+)$/.exec(cache) ?? [];
  if (layer === undefined) throw new GraphError(`export: expected a cache named layers.N.<entry>, got "${cache}"`);
  const state = stateNames[entry];
  if (state) return { past: `past_${state}.${layer}`, present: `present_${state}.${layer}` };
  const name = entry.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return { past: `past_key_values.${layer}.${name}`, present: `present.${layer}.${name}` };
}

/** True for a model that keeps a row per token, which `fixedDecoder` writes in place; others keep states only. */
export function keepsRows(model: LanguageModel): boolean {
  const rows = dim("C");
  return Object.values(model.cacheSpecs("B", rows)).some((spec) => hasRows(spec, rows));
}

function hasRows({ shape }: TensorSpec, rows: Dim): boolean {
  return shape[1]?.equals(rows) === true;
}

/** The decode graph with everything that a layout changes about it. */
function decoder(model: LanguageModel, form: SisaForm, layout: Layout): Graph {
  if (model.recurrentKinds.includes("mamba")) {
    throw new GraphError(
      "export: layers of kind mamba are not exported: ONNX has only Scan for what they sum, and exported files do without; mamba2 and mamba3 are",
    );
  }
  const traced = model.decodeGraph() as unknown as Graph;
  if (traced.nodes.some(({ op }) => op === sigmoidDecayAttentionOp)) {
    throw new GraphError(
      'export: SISA layers with weights "sigmoid" are not exported; those with weights "softmax" are',
    );
  }
  const decode = form === "exact" ? expandComposites(traced, ({ name }) => name === decayAttentionOp.name) : traced;
  const inputs: Record<string, AnyTensor> = { ...layout.inputs };
  // What takes the place of each tensor of the decode graph.
  const replaced = new Map<AnyTensor, AnyTensor>();
  const replacementOf = (tensor: AnyTensor | undefined): AnyTensor => {
    const found = tensor && replaced.get(tensor);
    if (found === undefined) throw new GraphError("export: the decode graph is not as expected");
    return found;
  };
  const { ids, start, last, ...others } = decode.inputTensors;
  const cacheSpecs = model.cacheSpecs("B", layout.rows);
  for (const [name, tensor] of Object.entries(others)) {
    const spec = cacheSpecs[name];
    if (spec === undefined) {
      inputs[name] = tensor;
      replaced.set(tensor, tensor);
      continue;
    }
    const fed = fileNames(name).past;
    const isRows = hasRows(spec, layout.rows);
    inputs[fed] = inputTensor(fed, isRows ? headsFirst(spec) : spec);
    replaced.set(tensor, isRows ? swapHeads(inputs[fed] as Tensor) : inputs[fed]);
  }
  if (ids) replaced.set(ids, layout.inputs.input_ids as AnyTensor);
  if (start) replaced.set(start, layout.start);
  if (last) replaced.set(last, layout.last);

  const picked = decode.outputTensors.logits?.node.inputs.a?.node;
  if (picked?.op !== takeRowOp) throw new GraphError("export: the decode graph does not pick rows for its logits");
  const rewriting = { form, layout, last, keepsStates: model.recurrentKinds.length > 0 };
  for (const node of decode.nodes) {
    const given = Object.fromEntries(
      Object.entries(node.inputs).map(([name, tensor]) => [name, replacementOf(tensor)]),
    );
    const outputs = node === picked ? { value: layout.pick(given.x as Tensor) } : translate(node, given, rewriting);
    for (const [name, tensor] of Object.entries(node.outputs)) {
      const output = outputs[name];
      if (output !== undefined) replaced.set(tensor, output);
    }
  }
  const outputs: Record<string, AnyTensor> = { logits: replacementOf(decode.outputTensors.logits) };
  for (const [name, spec] of Object.entries(cacheSpecs)) {
    const tensor = replacementOf(decode.outputTensors[name]) as Tensor;
    outputs[fileNames(name).present] = hasRows(spec, layout.rows) ? swapHeads(tensor) : tensor;
  }
  const whole = expandComposites(new Graph(inputs, outputs), ({ name }) => turning.has(name));
  // Without what nothing reads, such as positions where none of the layers asks for them.
  return pickOutputs(simplify(portable(whole, model.config)), Object.keys(outputs));
}

/** Operations that are made of sines and cosines. */
const turning: ReadonlySet<string> = new Set([ssmPrepareOp.name, rotateOp.name]);

interface Rewriting {
  readonly form: SisaForm;
  readonly layout: Layout;
  /** The decode graph's own input. */
  readonly last: AnyTensor | undefined;
  /** True where some layer carries more than rows of caches from token to token. */
  readonly keepsStates: boolean;
}

/** One node of the decode graph in the exported one. */
function translate(node: Node, inputs: { readonly [name: string]: AnyTensor }, rewriting: Rewriting): OpOutputs {
  const given = inputs as { readonly [name: string]: Tensor };
  const { x, cache, update, table } = given;
  const { form, layout, last, keepsStates } = rewriting;
  const { isToken } = layout;
  const scale = node.attributes.scale as number;
  switch (node.op) {
    case cacheWriteOp:
      if (cache && update) return { value: swapHeads(layout.write(swapHeads(cache), swapHeads(update))) };
      break;
    case takeRowOp:
      if (x && node.inputs.x?.node.op === inputOp) return { value: layout.rowBefore(swapHeads(x)) };
      break;
    case gatherOp:
      // Of all tables only that of rotations by position is not a parameter.
      if (table && node.inputs.table?.node.op === constantOp) return { value: gather(table, layout.positions) };
      break;
    case lessEqualOp:
      // Layers that keep a state ask which tokens count.
      if (isToken && last && node.inputs.b?.node.inputs.x === last) return { value: isToken };
      break;
    case rmsNormOp:
      // What begins before a row does is empty: convolutions and shifts reach back to it.
      if (isToken && keepsStates && x)
        return applyOp(node.op, { ...inputs, x: zeroPadding(x, isToken) }, node.attributes);
      break;
    case blockCumulativeSumOp:
      if (isToken && x) return applyOp(node.op, { ...inputs, x: zeroPadding(x, isToken) }, node.attributes);
      break;
    case ssmPrepareOp:
      return prepare(given, form, isToken);
    case attentionOp:
      return { value: attend(given, given.bias ? add(given.bias, layout.mask) : layout.mask, scale, form) };
    case forgettingAttentionOp:
      return { value: attend(given, forgetting(node, given, layout), scale, form) };
    case decayAttentionOp:
      return { value: attend(clampedChannels(given, scale, layout), layout.mask, scale, form) };
    case transposeOp:
      if (x) return { value: swapped(x, node.attributes.permutation as readonly number[]) };
  }
  return applyOp(node.op, inputs, bindAttributes(node.attributes, { C: layout.keys }), node.tag);
}

/** x [B,T,...] with zeros for padding. */
function zeroPadding(x: Tensor, isToken: Tensor<"bool">): Tensor {
  return where(reshape(isToken, [...isToken.shape, ...x.shape.slice(2).map(() => 1)]), x, 0);
}

/**
 * Padding neither decays nor turns what comes after it. Form `exact` keeps decays as sums within blocks, `sdpa` as sums
 * from the first token on.
 */
function prepare(
  inputs: { readonly [name: string]: Tensor },
  form: SisaForm,
  isToken: Tensor<"bool"> | undefined,
): OpOutputs {
  const { c, b, logDecay, phase, gBefore, ...before } = inputs;
  if (!c || !b || !logDecay || !phase || !gBefore) throw new GraphError("export: ssmPrepare lacks inputs");
  const kept = (values: Tensor) => (isToken ? zeroPadding(values, isToken) : values);
  const prepared = ssmPrepare({ c, b, logDecay: kept(logDecay), phase: kept(phase), gBefore, ...before });
  if (form === "exact") return prepared;
  const [B = 1, H = 1] = gBefore.shape;
  return { ...prepared, g: add(cumulativeSum(kept(logDecay), { axis: 1 }), reshape(gBefore, [B, 1, H])) };
}

/** Queries and keys of form `sdpa`: their products are the whole score. See `sdpaChannels` of @sisa/core. */
function clampedChannels(
  inputs: { readonly [name: string]: Tensor },
  scale: number,
  { isKey }: Layout,
): { readonly [name: string]: Tensor } {
  const { q, k, v, cRotated, bRotated, gQuery, gKey, lambda } = inputs;
  if (!q || !k || !v || !cRotated || !bRotated || !gQuery || !gKey || !lambda) {
    throw new GraphError("export: decayAttention lacks inputs");
  }
  const isRow = reshape(isKey, [...isKey.shape, 1]);
  const largest = (g: Tensor) => max(where(isRow, g, unseen), { axes: [1], keepDims: true }); // [B,1,H]
  const offset = mul(sub(largest(gKey), largest(neg(gKey))), 0.5);
  const clamped = (g: Tensor) => minimum(maximum(sub(g, offset), -sdpaClamp), sdpaClamp);
  const weight = reshape(mul(sqrt(lambda), scale ** -0.5), [...lambda.shape, 1]);
  const channels = (x: Tensor, g: Tensor) => mul(mul(x, reshape(exp(g), [...g.shape, 1])), weight);
  return {
    q: concat([q, channels(cRotated, clamped(gQuery))], { axis: 3 }),
    k: concat([k, channels(bRotated, neg(clamped(gKey)))], { axis: 3 }),
    v,
  };
}

/** What is added to the scores of attention that forgets or has a window: [B,H or 1,T,keys]. */
function forgetting(node: Node, { gQuery, gKey }: { readonly [name: string]: Tensor }, layout: Layout): Tensor {
  const { positions, keyPositions, keys } = layout;
  const [B = 1, T = 1] = positions.shape;
  const query = reshape(positions, [B, 1, T, 1]);
  const key = reshape(keyPositions, [keyPositions.shape[0] ?? 1, 1, 1, keys]);
  const window = node.attributes.window as number;
  const sinks = node.attributes.sinks as number;
  const isNear = less<"int">(sub<"int">(query, window), key);
  const isSeen = sinks > 0 ? or(isNear, less<"int">(key, sinks)) : isNear;
  const mask = window > 0 ? where(isSeen, layout.mask, unseen) : layout.mask;
  if (!gQuery || !gKey) return mask;
  // Gates of tokens are in the caches; those of ALiBi follow from positions.
  if (node.inputs.gKey?.node.op === cacheWriteOp) return add(decaySums(gQuery, gKey, layout.start), mask);
  const H = gKey.shape[2]?.value ?? 1;
  const slopes = constant(alibiSlopes(H), "float32", [H, 1, 1]);
  return add(mul(cast(sub<"int">(key, query), "float32"), slopes), mask);
}

/** Attention in operations that every provider has a kernel for; form `sdpa` is one stock call. The mask is causal. */
function attend({ q, k, v }: { readonly [name: string]: Tensor }, mask: Tensor, scale: number, form: SisaForm): Tensor {
  if (!q || !k || !v) throw new GraphError("export: attention lacks inputs");
  const heads = { q: swapHeads(q), k: swapHeads(k), v: swapHeads(v) };
  return swapHeads(maskedAttention({ ...heads, mask }, { scale, isStock: form === "sdpa" }));
}

/** A cache with heads in front of time. */
function headsFirst({ dtype, shape }: TensorSpec): TensorSpec {
  const [B = Dim.of(0), time = Dim.of(0), H = Dim.of(0), ...rest] = shape;
  return { dtype, shape: [B, H, time, ...rest] };
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
