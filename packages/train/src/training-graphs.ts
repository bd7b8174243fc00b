// The two programs of a training step. `accumulate` adds a micro-batch's gradients; `update` takes one optimizer step
// with the sum. Nothing is read back between them.
import {
  type AnyTensor,
  adamw,
  add,
  and,
  cast,
  clipFactor,
  concat,
  div,
  f32,
  finite,
  Graph,
  type GraphInputs,
  type GraphOutputs,
  globalNorm,
  inBfloat16,
  inPrecision,
  inputTensor,
  type LanguageModel,
  type LossGraph,
  lessEqual,
  bool as logical,
  maximum,
  mul,
  narrowDType,
  not,
  or,
  type Precision,
  reshape,
  shadowName,
  simplify,
  slice,
  type Tensor,
  type TensorSpec,
  takeFilled,
  takeShadows,
  trace,
  valueAndGrad,
  where,
} from "@sisa/core";
import type { ResolvedSettings } from "./config/settings.ts";
import { parameterSettings } from "./optimizer/parameter-groups.ts";
import { type Rematerialization, rematerialized } from "./rematerialize.ts";

/** Names of the tensors that a step keeps on the device, besides the parameters. */
export const stateName = {
  gradient: (parameter: string): string => `gradient.${parameter}`,
  firstMoment: (parameter: string): string => `firstMoment.${parameter}`,
  secondMoment: (parameter: string): string => `secondMoment.${parameter}`,
  loss: "loss",
  halted: "halted",
  /** What the loss is multiplied by before it is differentiated, in precision `float16`. */
  lossScale: "lossScale",
  /** Steps that took effect since the scale changed. */
  stepsAtScale: "stepsAtScale",
} as const;

/**
 * How the scale of the loss follows what float16 can hold: halved after a step whose gradients are not finite, doubled
 * after `interval` steps in a row that are. Source: Micikevicius et al. 2018, arXiv:1710.03740; numbers of torch.amp.
 */
export const lossScaling = { first: 2 ** 16, least: 1, interval: 2000 } as const;

/** Whether gradients are those of a scaled loss. */
export function isScaled(precision: Precision): boolean {
  return precision === "float16";
}

/** A graph with the pairs of input and output that are state. */
export interface StatefulGraph {
  readonly graph: Graph;
  readonly state: Readonly<Record<string, string>>;
}

/**
 * Whether precision `paper` keeps a parameter, its gradient and its moments in bfloat16. The paper's code does so with
 * all but lambda, which never moved otherwise.
 */
export function isRounded(parameter: string, precision: Precision): boolean {
  return precision === "paper" && parameter !== stateName.loss && !parameter.endsWith("lambda_raw");
}

/**
 * The loss of a model by its parameters as they are kept in training: filled up with zeros to even widths, where a precision
 * has any.
 */
export function trainingLoss(model: LanguageModel, precision: Precision): LossGraph {
  return takeFilled(inPrecision(model.lossGraph(), precision));
}

/** Specs of parameters as they are kept in training. */
export function keptSpecs(model: LanguageModel, precision: Precision): Readonly<Record<string, TensorSpec<"float">>> {
  const { inputTensors } = trainingLoss(model, precision) as unknown as Graph;
  return Object.fromEntries(
    Object.keys(model.parameters).map((name) => {
      const { dtype, shape } = inputTensors[name] as Tensor;
      return [name, { dtype, shape }];
    }),
  );
}

/** Values of a matrix cut to another size, or filled up to it with zeros; those of anything else as they are. */
export function resized(values: Float32Array, from: readonly number[], to: readonly number[]): Float32Array {
  const [rows = 0, width = 0] = from;
  const [wantedRows = 0, wanted = 0] = to;
  if (from.join() === to.join() || values.length !== rows * width) return values;
  const result = new Float32Array(wantedRows * wanted);
  for (let row = 0; row < Math.min(rows, wantedRows); row++) {
    result.set(values.subarray(row * width, row * width + Math.min(width, wanted)), row * wanted);
  }
  return result;
}

/**
 * The loss and its gradients by every parameter, for `ids` and `targets` [B,T]; in precision `float16` all of them times
 * the input `lossScale`.
 */
export function gradientGraph(model: LanguageModel, precision: Precision = "float32"): Graph {
  const names = Object.keys(model.parameters);
  const loss = trainingLoss(model, precision);
  const scaled = isScaled(precision) ? withLossScale(loss as unknown as Graph) : loss;
  return valueAndGrad(scaled as typeof loss, { wrt: names }) as unknown as Graph;
}

function withLossScale(graph: Graph): Graph {
  const scale = inputTensor(stateName.lossScale, f32()) as Tensor;
  const value = mul(graph.outputTensors.value as Tensor, scale);
  return new Graph<GraphInputs, GraphOutputs>({ ...graph.inputTensors, [stateName.lossScale]: scale }, { value });
}

/**
 * The loss and the gradients of a step's micro-batches, summed, as `loss` and `gradient.<parameter>`.
 *
 * Inputs: `ids`, `targets` int32 [B,T]; the parameters, or their narrow copies `shadow.<parameter>`; in precision `float16`
 * `lossScale`, by which loss and gradients are multiplied; with several micro-batches a step also the sums so far, which
 * are state, and `first` bool [], true where the sums start anew.
 */
export function accumulateGraph(
  model: LanguageModel,
  microBatches: number,
  precision: Precision = "float32",
  rematerialization: Rematerialization = "none",
): StatefulGraph & { readonly shadowed: readonly string[] } {
  const parameters = Object.keys(model.parameters);
  const { graph, shadowed } = takeShadows(gradientGraph(model, precision), parameters);
  const gradients = rematerialized(simplify(graph), rematerialization);
  const terms: Record<string, AnyTensor | undefined> = {
    [stateName.loss]: gradients.outputTensors.value,
    ...Object.fromEntries(
      Object.keys(model.parameters).map((name) => [stateName.gradient(name), gradients.outputTensors[`grad.${name}`]]),
    ),
  };
  const inputs: Record<string, AnyTensor> = { ...gradients.inputTensors };
  const outputs: Record<string, AnyTensor> = {};
  const first = inputTensor("first", logical()) as Tensor<"bool">;
  if (microBatches > 1) inputs.first = first;
  for (const [name, term] of Object.entries(terms)) {
    if (term === undefined) continue;
    const stored = isRounded(name.replace(stateName.gradient(""), ""), precision) ? inBfloat16 : (x: Tensor) => x;
    const own = stored(term as Tensor);
    outputs[name] = own;
    if (microBatches === 1) continue;
    const before = inputTensor(name, { dtype: term.dtype, shape: term.shape }) as Tensor;
    inputs[name] = before;
    outputs[name] = where(first, own, stored(add(before, own)));
  }
  const state = microBatches === 1 ? [] : Object.keys(outputs);
  return {
    graph: simplify(new Graph<GraphInputs, GraphOutputs>(inputs, outputs, gradients.nodes)),
    state: Object.fromEntries(state.map((name) => [name, name])),
    shadowed,
  };
}

/**
 * One step of AdamW with the summed gradients, clipped by their common norm.
 *
 * Inputs: `rates` float32 [3] (learning rate, 1 - beta1^t, 1 - beta2^t); the parameters, their moments, the sums, and
 * `halted`.
 * State: the parameters, the moments, and `halted`. Where loss or norm is not finite, parameters and moments stay as they
 * are, bit for bit, and so they do in every later step until the host clears `halted`: it can then look into the very state
 * in which the step failed.
 * Narrow copies of parameters, `shadow.<parameter>`, are state too, for the parameters that are named; so are, in precision
 * `float16`, `lossScale` and `stepsAtScale`.
 * Output: `report` float32 [3]: mean loss of the step, norm of its gradients before clipping, 1 where it took effect. In
 * precision `float16` [5]: then the scale of the loss for the next step, and the steps since it changed.
 */
export function updateGraph(
  model: LanguageModel,
  settings: ResolvedSettings,
  shadowed: readonly string[] = [],
): StatefulGraph {
  const { beta1, beta2, epsilon, weightDecay, clipNorm, groups } = settings.optimizer;
  const specs = Object.entries(keptSpecs(model, settings.precision));
  const own = parameterSettings(model.parameters, weightDecay, groups);
  const narrow = narrowDType(settings.precision);
  const scaled = isScaled(settings.precision);
  const inputs = {
    rates: f32(3),
    [stateName.loss]: f32(),
    [stateName.halted]: logical(),
    ...Object.fromEntries(
      specs.flatMap(([name, spec]) => [
        [name, spec],
        [stateName.firstMoment(name), spec],
        [stateName.secondMoment(name), spec],
        [stateName.gradient(name), spec],
      ]),
    ),
    ...shadowSpecs(model, shadowed, settings.precision),
    ...(scaled ? scaleSpecs : {}),
  };
  const graph = trace(inputs as GraphInputs, (tensors) => {
    const float = (name: string): Tensor => tensors[name] as Tensor;
    const rate = (index: number): Tensor =>
      reshape(slice(float("rates"), { axis: 0, start: index, end: index + 1 }), []);
    const part = 1 / settings.gradientAccumulation;
    const share = scaled ? div(part, float(stateName.lossScale)) : part;
    const loss = mul(float(stateName.loss), share);
    const norm = mul(globalNorm(specs.map(([name]) => float(stateName.gradient(name)))), share);
    const wasHalted = tensors[stateName.halted] as unknown as Tensor<"bool">;
    const sound = and(finite(norm), finite(loss));
    const proceed = and(sound, not(wasHalted));
    const gradientScale = mul(clipFactor(norm, clipNorm), share);
    const outputs: Record<string, AnyTensor> = {};
    for (const [name] of specs) {
      const { learningRateFactor, weightDecay: decay } = own.get(name) ?? { learningRateFactor: 1, weightDecay };
      const updated = adamw(
        {
          parameter: float(name),
          gradient: float(stateName.gradient(name)),
          firstMoment: float(stateName.firstMoment(name)),
          secondMoment: float(stateName.secondMoment(name)),
          learningRate: learningRateFactor === 1 ? rate(0) : mul(rate(0), learningRateFactor),
          firstCorrection: rate(1),
          secondCorrection: rate(2),
          gradientScale,
          proceed,
        },
        { beta1, beta2, epsilon, weightDecay: decay },
      );
      const stored = isRounded(name, settings.precision) ? inBfloat16 : (x: Tensor) => x;
      outputs[name] = stored(updated.parameter);
      if (shadowed.includes(name)) outputs[shadowName(name)] = cast(updated.parameter, narrow ?? "float32");
      outputs[stateName.firstMoment(name)] = stored(updated.firstMoment);
      outputs[stateName.secondMoment(name)] = stored(updated.secondMoment);
    }
    outputs[stateName.halted] = or(wasHalted, not(sound));
    const scale = scaled
      ? nextScale(float(stateName.lossScale), float(stateName.stepsAtScale), {
          proceed,
          failed: and(not(sound), not(wasHalted)),
        })
      : {};
    const scalars = [loss, norm, cast(proceed, "float32") as Tensor, ...Object.values(scale)];
    return {
      ...outputs,
      ...scale,
      report: concat(
        scalars.map((scalar) => reshape(scalar, [1])),
        { axis: 0 },
      ),
    };
  });
  const state = Object.keys(graph.outputs).filter((name) => name !== "report");
  return { graph: simplify(graph), state: Object.fromEntries(state.map((name) => [name, name])) };
}

const scaleSpecs = { [stateName.lossScale]: f32(), [stateName.stepsAtScale]: f32() };

/** The scale of the loss after a step that took effect or failed; a step that found the device halted changes nothing. */
function nextScale(
  scale: Tensor,
  steps: Tensor,
  { proceed, failed }: { readonly proceed: Tensor<"bool">; readonly failed: Tensor<"bool"> },
): Readonly<Record<string, Tensor>> {
  const { least, interval } = lossScaling;
  const grows = and(proceed, lessEqual(interval - 1, steps));
  return {
    [stateName.lossScale]: where(failed, maximum(mul(scale, 0.5), least), where(grows, mul(scale, 2), scale)),
    [stateName.stepsAtScale]: where(or(failed, grows), 0, where(proceed, add(steps, 1), steps)),
  };
}

/**
 * Makes the narrow copies of parameters, for a start and after a restore; `update` keeps them from then on.
 * State: the copies.
 */
export function shadowGraph(model: LanguageModel, shadowed: readonly string[], precision: Precision): StatefulGraph {
  const specs = keptSpecs(model, precision);
  const narrow = narrowDType(precision) ?? "float32";
  const parameters = Object.fromEntries(shadowed.map((name) => [name, specs[name] ?? f32()]));
  const graph = trace({ ...parameters, ...shadowSpecs(model, shadowed, precision) } as GraphInputs, (tensors) =>
    Object.fromEntries(shadowed.map((name) => [shadowName(name), cast(tensors[name] as Tensor, narrow)])),
  );
  return { graph, state: Object.fromEntries(shadowed.map((name) => [shadowName(name), shadowName(name)])) };
}

/** Specs of the narrow copies of parameters, by `shadow.<parameter>`. */
export function shadowSpecs(
  model: LanguageModel,
  shadowed: readonly string[],
  precision: Precision,
): Readonly<Record<string, TensorSpec<"float">>> {
  const specs = keptSpecs(model, precision);
  const dtype = narrowDType(precision) ?? "float32";
  return Object.fromEntries(shadowed.map((name) => [shadowName(name), { dtype, shape: specs[name]?.shape ?? [] }]));
}
