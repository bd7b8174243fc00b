import { inspect } from "node:util";
import { describe, expect, test, vi } from "vitest";
import * as errors from "./errors.ts";
import {
  BackendUnavailableError,
  CheckpointError,
  ConfigError,
  DataError,
  DeviceError,
  DisposedError,
  DTypeError,
  GraphError,
  ShapeError,
  SisaError,
  UnsupportedOpError,
} from "./errors.ts";

const codes = {
  SHAPE: ShapeError,
  DTYPE: DTypeError,
  GRAPH: GraphError,
  BACKEND_UNAVAILABLE: BackendUnavailableError,
  DEVICE: DeviceError,
  DISPOSED: DisposedError,
  CONFIG: ConfigError,
  CHECKPOINT: CheckpointError,
  DATA: DataError,
};

describe.each(Object.entries(codes))("%s", (code, ErrorClass) => {
  const error = new ErrorClass("expected 2, got 3", { cause: "the cause" });

  test("is an error with a name, a code, a message and a cause", () => {
    expect(error).toBeInstanceOf(Error);
    expect(error).toBeInstanceOf(SisaError);
    expect(error).toMatchObject({ name: ErrorClass.name, code, message: "expected 2, got 3", cause: "the cause" });
    expect(String(error)).toBe(`${ErrorClass.name}: expected 2, got 3`);
    expect(error.stack).toContain("errors.test.ts");
  });

  test("is an instance of its class and of the base, and of no other", () => {
    for (const [other, OtherClass] of Object.entries(codes)) expect(OtherClass.isInstance(error)).toBe(other === code);
    expect(SisaError.isInstance(error)).toBe(true);
    expect(UnsupportedOpError.isInstance(error)).toBe(false);
  });
});

test("codes are different for every class", () => {
  const classes = Object.values(errors);
  expect(new Set(classes.map(({ code }) => code)).size).toBe(classes.length);
});

test("UnsupportedOpError says which operation and which backend", () => {
  const error = new UnsupportedOpError("acme/fft", "onnxruntime", "pass a lowering for it");
  expect(error.message).toBe('onnxruntime: cannot run "acme/fft": pass a lowering for it');
  expect(error).toMatchObject({ code: "UNSUPPORTED_OP", op: "acme/fft", backend: "onnxruntime" });
});

describe("isInstance", () => {
  test("knows errors of another copy of the package", async () => {
    vi.resetModules();
    const copy = await import("./errors.ts");
    const foreign = new copy.ShapeError("from the other copy");
    expect(foreign).not.toBeInstanceOf(SisaError);
    expect(ShapeError.isInstance(foreign)).toBe(true);
    expect(SisaError.isInstance(foreign)).toBe(true);
    expect(DTypeError.isInstance(foreign)).toBe(false);
    expect(copy.ShapeError.isInstance(new ShapeError("ours"))).toBe(true);
  });

  test("knows classes that others derive", () => {
    class TileError extends ShapeError {
      static override readonly code = "TILE";
    }
    const error = new TileError("too small");
    expect(error).toMatchObject({ name: "TileError", code: "TILE" });
    expect(TileError.isInstance(error)).toBe(true);
    expect(ShapeError.isInstance(error)).toBe(true);
    expect(TileError.isInstance(new ShapeError("no tile"))).toBe(false);
  });

  test("is false for everything else", () => {
    const lookalike = Object.assign(new Error("x"), { code: "SHAPE", name: "ShapeError" });
    for (const value of [lookalike, undefined, null, "ShapeError", 3, {}, [], () => {}]) {
      expect(ShapeError.isInstance(value)).toBe(false);
    }
  });
});

test("a printed error shows its code and no marks", () => {
  const printed = inspect(new ShapeError("expected 2, got 3"));
  expect(printed.split("\n")[0]).toBe("ShapeError: expected 2, got 3");
  expect(printed.slice(printed.lastIndexOf("{")).replace(/\s+/g, " ")).toBe("{ code: 'SHAPE' }");
});
