import { ConfigError, filled, languageModel, preset } from "@sisa/core";
import { describe, expect, it } from "vitest";
import { parameterSettings } from "./parameter-groups.ts";

const { parameters } = languageModel(preset("sisa", "1m", { vocabularySize: 257 }));

describe("parameterSettings", () => {
  it("gives lambda a tenth of the rate and no decay, and decays everything else", () => {
    const settings = parameterSettings(parameters, 0.1);
    expect(settings.get("layers.1.lambda_raw")).toEqual({ learningRateFactor: 0.1, weightDecay: 0 });
    for (const [name, own] of settings) {
      if (!name.endsWith("lambda_raw")) expect(own, name).toEqual({ learningRateFactor: 1, weightDecay: 0.1 });
    }
  });

  it("lets the first matching group win over the rest and over the layer", () => {
    const settings = parameterSettings(parameters, 0.1, [
      { parameters: ["layers.0.*"], learningRateFactor: 2, weightDecay: 0.5 },
      { parameters: ["*lambda_raw"], learningRateFactor: 3, weightDecay: 0 },
    ]);
    expect(settings.get("layers.0.lambda_raw")).toEqual({ learningRateFactor: 2, weightDecay: 0.5 });
    expect(settings.get("layers.1.lambda_raw")).toEqual({ learningRateFactor: 3, weightDecay: 0 });
  });

  it("takes a dot in a pattern literally", () => {
    const group = { parameters: ["layers.0"], learningRateFactor: 1, weightDecay: 0 };
    expect(() => parameterSettings({ layersX0: filled([1], 0) }, 0.1, [group])).toThrow(ConfigError);
  });

  it("refuses a group that matches nothing", () => {
    const group = { parameters: ["*.lamda_raw"], learningRateFactor: 1, weightDecay: 0 };
    expect(() => parameterSettings(parameters, 0.1, [group])).toThrow(
      'optimizer.groups: expected "*.lamda_raw" to match a parameter',
    );
  });
});
