// Element types of tensors, the kinds they belong to, and how numbers are rounded to them.

/** Element types of tensors. bfloat16 has 8 bits of exponent and 7 of mantissa; bool is a byte, 0 or 1. */
export type DType = "float32" | "float64" | "float16" | "bfloat16" | "int32" | "bool";

/** What a tensor holds, without its width: layers are written for kinds, precision policies choose widths. */
export type Kind = "float" | "int" | "bool";

/**
 * What `Backend.tensor` takes and `read` gives: Uint16Array holds bit patterns of float16 and bfloat16, Uint8Array
 * truth values.
 */
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array;

const kinds = {
  float32: "float",
  float64: "float",
  float16: "float",
  bfloat16: "float",
  int32: "int",
  bool: "bool",
} as const satisfies Record<DType, Kind>;

const bytes = { float32: 4, float64: 8, float16: 2, bfloat16: 2, int32: 4, bool: 1 } as const satisfies Record<
  DType,
  number
>;

/** The kind that a dtype belongs to: what operations ask for where the width does not matter. */
export function kindOf(dtype: DType): Kind {
  return kinds[dtype];
}

/** Size of one element in bytes. */
export function bytesOf(dtype: DType): number {
  return bytes[dtype];
}

/** An array that holds elements of a dtype. float16 and bfloat16 are kept as their bit patterns; bool as 0 and 1. */
export function allocate(dtype: DType, length: number): TypedArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(length);
    case "float64":
      return new Float64Array(length);
    case "float16":
    case "bfloat16":
      return new Uint16Array(length);
    case "int32":
      return new Int32Array(length);
    case "bool":
      return new Uint8Array(length);
    default:
      return dtype satisfies never;
  }
}

const float32View = new Float32Array(1);
const bitsView = new Uint32Array(float32View.buffer);

/** Bit pattern of the bfloat16 nearest to a number, ties to even; overflow gives infinity. */
export function toBfloat16Bits(value: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  float32View[0] = value;
  const bits = bitsView[0] ?? 0;
  const half = bits & 0xffff;
  // A float32 half way between two bfloat16 may itself have been rounded; then the number is on one side of it.
  const excess = half === 0x8000 ? Math.abs(value) - Math.abs(float32View[0] ?? 0) : 0;
  const up = excess === 0 ? half + ((bits >>> 16) & 1) > 0x8000 : excess > 0;
  return (bits >>> 16) + (up ? 1 : 0);
}

/** The number of a bfloat16 bit pattern; exact. */
export function fromBfloat16Bits(bits: number): number {
  bitsView[0] = bits << 16;
  return float32View[0] ?? 0;
}

/** Bit pattern of the float16 nearest to a number, ties to even; overflow gives infinity. */
export function toFloat16Bits(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude / 2 ** -24);
  const exponent = exponentOf(magnitude);
  const mantissa = roundHalfEven((magnitude / 2 ** exponent - 1) * 1024);
  return sign | (((exponent + 15) << 10) + mantissa);
}

/** The number of a float16 bit pattern; exact. */
export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15));
}

function exponentOf(magnitude: number): number {
  let exponent = Math.floor(Math.log2(magnitude));
  if (2 ** exponent > magnitude) exponent -= 1;
  if (2 ** (exponent + 1) <= magnitude) exponent += 1;
  return exponent;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** The number a dtype would hold in place of `value`. */
export function roundTo(dtype: DType, value: number): number {
  switch (dtype) {
    case "float64":
      return value;
    case "float32":
      return Math.fround(value);
    case "float16":
      return fromFloat16Bits(toFloat16Bits(value));
    case "bfloat16":
      return fromBfloat16Bits(toBfloat16Bits(value));
    case "int32":
      return value | 0;
    case "bool":
      return value ? 1 : 0;
    default:
      return dtype satisfies never;
  }
}
