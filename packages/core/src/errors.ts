// Every error this project throws on purpose. Classes carry Symbol.for marks, so that `isInstance` also works
// when a program holds two copies of the package.

const mark = Symbol.for("sisa.error");

/** Base of all errors. `code` is stable and meant for programs; the message is meant for people. */
export class SisaError extends Error {
  /** Of the class: "SHAPE", "CONFIG", "CHECKPOINT" and so on; the same in every version. */
  static readonly code: string = "SISA_ERROR";
  /** Of the class: "SHAPE", "CONFIG", "CHECKPOINT" and so on; the same in every version. */
  readonly code: string;

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = new.target.code;
    const codes: string[] = [];
    for (let type: unknown = new.target; isErrorClass(type); type = Object.getPrototypeOf(type)) codes.push(type.code);
    // Not enumerable, so that a printed error shows its code and no more.
    Object.defineProperties(this, { name: { value: new.target.name }, [mark]: { value: codes } });
  }

  /** True for errors of this class, or of a class derived from it, whichever copy of the package made them. */
  static isInstance<T extends SisaError>(
    this: { readonly code: string; readonly prototype: T },
    value: unknown,
  ): value is T {
    if (typeof value !== "object" || value === null || !(mark in value)) return false;
    const codes = value[mark];
    return Array.isArray(codes) && codes.includes(this.code);
  }
}

function isErrorClass(type: unknown): type is { readonly code: string } {
  return typeof type === "function" && "code" in type && typeof type.code === "string";
}

/** Shapes that an operation cannot take. */
export class ShapeError extends SisaError {
  static override readonly code: string = "SHAPE";
}

/** Element types that an operation cannot take. */
export class DTypeError extends SisaError {
  static override readonly code: string = "DTYPE";
}

/** A graph that is malformed: unknown names, dims left unbound, tensors of another trace, a broken invariant. */
export class GraphError extends SisaError {
  static override readonly code: string = "GRAPH";
}

/** A backend has neither a kernel nor a composition for an operation. */
export class UnsupportedOpError extends SisaError {
  static override readonly code: string = "UNSUPPORTED_OP";
  /** Name of the operation. */
  readonly op: string;
  /** Name of the backend. */
  readonly backend: string;

  constructor(op: string, backend: string, detail: string) {
    super(`${backend}: cannot run "${op}": ${detail}`);
    this.op = op;
    this.backend = backend;
  }
}

/** A backend cannot start: a missing package, driver or device. The message says what to install. */
export class BackendUnavailableError extends SisaError {
  static override readonly code: string = "BACKEND_UNAVAILABLE";
}

/** The device failed while running: out of memory, lost, or an operation that it refused. */
export class DeviceError extends SisaError {
  static override readonly code: string = "DEVICE";
}

/** Use of a tensor, executable or backend after it was closed or its value was replaced. */
export class DisposedError extends SisaError {
  static override readonly code: string = "DISPOSED";
}

/** A configuration with unknown, missing, impossible or conflicting fields. */
export class ConfigError extends SisaError {
  static override readonly code: string = "CONFIG";
}

/** A model file or checkpoint that is missing, damaged, unsafe or of another model. */
export class CheckpointError extends SisaError {
  static override readonly code: string = "CHECKPOINT";
}

/** Text or tokens that cannot be used: empty, too short, not UTF-8, of another tokenizer. */
export class DataError extends SisaError {
  static override readonly code: string = "DATA";
}
