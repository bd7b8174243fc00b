// How many steps fit into a time: several trainings that take turns are timed together.

export interface TimingOptions {
  /** How long to time, in seconds. */
  readonly seconds: number;
  /** Rounds at least and at most, whatever the time. */
  readonly fewestRounds: number;
  readonly mostRounds: number;
  /** Milliseconds of a clock that never goes back. */
  readonly now?: () => number;
}

/**
 * Seconds of one step of every training together, on a machine that may be busy for a part of the time.
 * The trainings take turns, so that a busy moment meets them all; the lower quartile of the rounds is not moved by rounds
 * that were held up, as long as a quarter were not.
 *
 * @param takeSteps take one step each; those that compile or warm up should have been taken before
 */
export async function secondsPerRound(
  takeSteps: readonly (() => Promise<unknown>)[],
  { seconds, fewestRounds, mostRounds, now = () => performance.now() }: TimingOptions,
): Promise<number> {
  const rounds: number[] = [];
  const endMs = now() + seconds * 1000;
  while (rounds.length < fewestRounds || (rounds.length < mostRounds && now() < endMs)) {
    const startMs = now();
    for (const takeStep of takeSteps) await takeStep();
    rounds.push((now() - startMs) / 1000);
  }
  rounds.sort((a, b) => a - b);
  return rounds[Math.floor((rounds.length - 1) / 4)] ?? Number.NaN;
}
