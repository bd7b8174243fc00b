// Lambda and half-life of every head of a SISA model, read from its parameters.

/** One number for each layer and head: `values[layer][head]`. */
export type HeadValues = readonly (readonly number[])[];

/** What SISA's heads learned. */
export interface HeadTable {
  /** Names of the layers, as in "0", outermost index of the values. */
  readonly layers: readonly string[];
  /** Weight of the importance term, > 0. */
  readonly lambda: HeadValues;
  /** Tokens after which half of an importance is forgotten, by the bias of the decay alone. */
  readonly halfLife: HeadValues;
  /** The same from a measured mean decay, where one was given. */
  readonly measuredHalfLife?: HeadValues;
}

const ln2 = Math.log(2);

/**
 * Half-life in tokens of a decay: ln 2 / -log(alpha).
 * @param logDecay log alpha <= 0
 */
export function halfLifeOf(logDecay: number): number {
  return ln2 / -logDecay;
}

/**
 * Lambda and half-life by layer and head, or undefined where the parameters are not of a SISA model.
 * lambda = softplus(lambda_raw); log alpha = -softplus(bias of alpha_proj).
 *
 * @param parameters by name; only `layers.N.lambda_raw` and `layers.N.alpha_proj.bias` are read
 * @param meanLogDecay measured mean of log alpha, by layer and head, over some text
 */
export function headTable(
  parameters: Readonly<Record<string, ArrayLike<number>>>,
  meanLogDecay?: HeadValues,
): HeadTable | undefined {
  const layers = Object.keys(parameters)
    .map((name) => /^layers\.(\d+)\.(?:.*\.)?lambda_raw$/.exec(name)?.[1])
    .filter((layer) => layer !== undefined)
    .sort((a, b) => Number(a) - Number(b));
  if (layers.length === 0) return undefined;
  const row = (layer: string, suffix: string): number[] => {
    const name = Object.keys(parameters).find((key) => key.startsWith(`layers.${layer}.`) && key.endsWith(suffix));
    return Array.from(name === undefined ? [] : (parameters[name] ?? []));
  };
  const lambda = layers.map((layer) => row(layer, "lambda_raw").map(softplus));
  const halfLife = layers.map((layer) => row(layer, "alpha_proj.bias").map((bias) => halfLifeOf(-softplus(bias))));
  if (meanLogDecay === undefined) return { layers, lambda, halfLife };
  return { layers, lambda, halfLife, measuredHalfLife: meanLogDecay.map((heads) => heads.map(halfLifeOf)) };
}

function softplus(value: number): number {
  return Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value)));
}
