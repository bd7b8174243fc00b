import { expect, test } from "vitest";
import { sourceHash, sources } from "../../kernel-sources.mjs";
import { kernelImages, targetFor } from "./kernels.ts";
import { host } from "./native.ts";

test.each(sources())(
  "the code of %s was compiled from the source that is here; `npm run kernels` compiles it",
  (name) => {
    expect(kernelImages[name]?.source).toBe(sourceHash(name));
  },
);

test("there is code for every kernel file and no other, for every target", () => {
  expect(Object.keys(kernelImages).sort()).toEqual(sources());
  const text = (image: string | undefined) => new TextDecoder("latin1").decode(host.decompress(image ?? ""));
  for (const [file, { kernels, images }] of Object.entries(kernelImages)) {
    const own = file.endsWith("-hopper") ? ["sm_90a"] : ["ptx", "sm_80", "sm_90a"];
    expect(Object.keys(images).sort()).toEqual(own);
    for (const [target, image] of Object.entries(images)) {
      const code = text(image);
      if (target !== "ptx") expect(code.slice(1, 4)).toBe("ELF");
      for (const name of Object.keys(kernels)) expect(code).toContain(target === "ptx" ? `.entry ${name}(` : name);
    }
  }
});

test("a device runs machine code of its own generation, what is newer runs PTX", () => {
  expect([75, 80, 86, 89, 90, 100, 120].map(targetFor)).toEqual([
    undefined,
    "sm_80",
    "sm_80",
    "sm_80",
    "sm_90a",
    "ptx",
    "ptx",
  ]);
});

test("all code together stays far below what a package may weigh", () => {
  const bytes = Object.values(kernelImages).flatMap(({ images }) => Object.values(images).map((text) => text.length));
  expect(bytes.reduce((a, b) => a + b)).toBeLessThan(30e6);
});
