/// <reference types="@webgpu/types" />
// Matrix units of an adapter: what WGSL calls subgroup matrices, which no version of WebGPU has yet. Few adapters have them,
// so this is loaded when a device is opened that may.

import type { DeviceLimits } from "./device.ts";
import type { Tile } from "./kernels/matmul-tiles.ts";
import { unitTiles } from "./kernels/matmul-units.ts";
import type { Product } from "./kernels/product.ts";

/** Products of [m, k] x [k, n] halves that a subgroup adds to float32 sums at once. */
export interface MatrixSize {
  /** Rows of the first factor and of the sums. */
  readonly m: number;
  /** Columns of the second factor and of the sums. */
  readonly n: number;
  /** Columns of the first factor, rows of the second. */
  readonly k: number;
  /** Lanes of every subgroup. */
  readonly lanes: number;
}

/** Matrix units, and what is made of them. */
export interface MatrixUnit extends MatrixSize {
  /**
   * Tiles of a product, from the largest on; none where the operands are no halves in lines of eights.
   * @internal
   */
  tiles(product: Product, limits: DeviceLimits): readonly Tile[];
}

export function matrixUnit(size: MatrixSize): MatrixUnit {
  return { ...size, tiles: (product, limits) => unitTiles(product, size, limits) };
}

/** As in Dawn's extension of GPUAdapterInfo. */
interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The largest that kernels can use; undefined where there is none, or where subgroups are not all of one size. */
export function matrixUnitOf(info: GPUAdapterInfo): MatrixUnit | undefined {
  const { subgroupMatrixConfigs = [] } = info as { readonly subgroupMatrixConfigs?: readonly SubgroupMatrixConfig[] };
  const lanes = info.subgroupMaxSize ?? 0;
  if (lanes === 0 || info.subgroupMinSize !== lanes) return undefined;
  const [largest] = subgroupMatrixConfigs
    .filter(({ componentType, resultComponentType }) => componentType === "f16" && resultComponentType === "f32")
    .filter(({ M, N, K }) => [M, N, K].every((size) => size >= 4 && 32 % size === 0))
    .sort((one, other) => other.M * other.N * other.K - one.M * one.N * one.K);
  return largest && matrixUnit({ m: largest.M, n: largest.N, k: largest.K, lanes });
}
