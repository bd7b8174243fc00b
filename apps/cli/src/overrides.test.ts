import { ConfigError } from "@sisa/core";
import { expect, it } from "vitest";
import { splitTrainWords } from "./overrides.ts";

it("tells the configuration file from fields and their values", () => {
  expect(splitTrainWords(["--steps", "5", "a.config.ts", "--optimizer.beta1=0.8", "--save-every", "-1"])).toEqual({
    file: "a.config.ts",
    overrides: [
      ["steps", "5"],
      ["optimizer.beta1", "0.8"],
      ["save-every", "-1"],
    ],
  });
});

it("takes a flag alone, with yes or no, and with an equals sign", () => {
  expect(splitTrainWords(["--tensorboard", "a.json", "--keep-best", "false", "--report=false"])).toEqual({
    file: "a.json",
    overrides: [
      ["tensorboard", "true"],
      ["keep-best", "false"],
      ["report", "false"],
    ],
  });
});

it("takes --resume alone, and with a word", () => {
  expect(splitTrainWords(["--resume"]).overrides).toEqual([["resume", "true"]]);
  expect(splitTrainWords(["--resume", "--steps", "5"]).overrides).toEqual([
    ["resume", "true"],
    ["steps", "5"],
  ]);
  expect(splitTrainWords(["--resume", "auto"]).overrides).toEqual([["resume", "auto"]]);
});

it("keeps equals signs and line ends in a value", () => {
  expect(splitTrainWords(["--sample-prompts=a = b\nc"]).overrides).toEqual([["sample-prompts", "a = b\nc"]]);
});

it.each([[["a.json", "b.json"]], [["--steps"]], [["--steps", "--seed", "1"]]])("refuses %j", (words) => {
  expect(() => splitTrainWords(words)).toThrow(ConfigError);
});
