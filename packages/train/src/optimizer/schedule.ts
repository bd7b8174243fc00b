// The learning rate of each step: linear warm-up, then a cosine. It holds no state, so a resumed run needs only the step.

/** What the learning rate of a step depends on. */
export interface LearningRateSchedule {
  /** Peak, reached at step `warmupSteps`. */
  readonly learningRate: number;
  /** Steps of the linear rise from 0; step 0 has rate 0 where it is above 0. */
  readonly warmupSteps: number;
  /** Step at which the cosine ends. */
  readonly totalSteps: number;
  /** Rate at the end, as a fraction of the peak. */
  readonly finalFraction: number;
}

/**
 * Learning rate of the step with this index, counted from 0.
 * peak * step / warmup, then peak * (final + (1 - final) * (1 + cos(pi * progress)) / 2); `final` * peak past the end.
 * Source: the LambdaLR of tlstngud/sisa-experiment's train.py, with final = 0.
 */
export function learningRateAt(step: number, schedule: LearningRateSchedule): number {
  const { learningRate, warmupSteps, totalSteps, finalFraction } = schedule;
  if (step < warmupSteps) return learningRate * (step / warmupSteps);
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
  const cosine = 0.5 * (1 + Math.cos(Math.PI * progress));
  return learningRate * (finalFraction + (1 - finalFraction) * cosine);
}
