// Which parameters have a learning rate or a weight decay of their own. Layers declare it (lambda: a tenth of the rate, no
// decay); groups of the user, patterns over parameter names, come before that.
import { ConfigError, type Parameters } from "@sisa/core";

/** Settings for the parameters whose names match one of the patterns. */
export interface ParameterGroup {
  /** Names of parameters; `*` stands for any characters, as in `*.lambda_raw`. */
  readonly parameters: readonly string[];
  /** Factor on the scheduled learning rate. */
  readonly learningRateFactor: number;
  /** Decoupled weight decay (AdamW). */
  readonly weightDecay: number;
}

/** Learning-rate factor and weight decay of one parameter. */
export interface ParameterSettings {
  /** Factor of the schedule's learning rate. */
  readonly learningRateFactor: number;
  /** That of AdamW for this parameter; 0 for none. */
  readonly weightDecay: number;
}

/**
 * Settings of every parameter. The first group that matches wins; without one, what its layer declares holds: as a rule
 * factor 1 and the common decay, for norms, biases and embeddings too, as in the paper.
 *
 * @param weightDecay decay of what nobody excludes from it
 * @throws ConfigError where a pattern matches no parameter
 */
export function parameterSettings(
  parameters: Parameters,
  weightDecay: number,
  groups: readonly ParameterGroup[] = [],
): ReadonlyMap<string, ParameterSettings> {
  const names = Object.keys(parameters);
  const matchers = groups.map((group) => ({ group, tests: group.parameters.map(patternTest) }));
  for (const { group, tests } of matchers) {
    tests.forEach((test, index) => {
      if (!names.some(test)) {
        throw new ConfigError(
          `optimizer.groups: expected "${group.parameters[index]}" to match a parameter, but none of ${names.length} ` +
            `does; names look like "${names.at(-2) ?? names[0] ?? ""}"`,
        );
      }
    });
  }
  return new Map(
    Object.entries(parameters).map(([name, declared]) => {
      const found = matchers.find(({ tests }) => tests.some((test) => test(name)))?.group;
      return [
        name,
        {
          learningRateFactor: found?.learningRateFactor ?? declared.learningRateFactor ?? 1,
          weightDecay: found?.weightDecay ?? (declared.weightDecay === false ? 0 : weightDecay),
        },
      ];
    }),
  );
}

function patternTest(pattern: string): (name: string) => boolean {
  const source = pattern
    .split("*")
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"))
    .join(".*");
  const expression = new RegExp(`^${source}$`);
  return (name) => expression.test(name);
}
