// Definitions of mixers, one token after another in plain loops and float64, from the equations of the papers and of the
// models' public code. For tests; no entry exports it.

import { RandomStream } from "../random.ts";
import type { AttentionMixerSizes } from "./attention-mixer.ts";
import type { Layer } from "./layer.ts";
import type { MambaMixer } from "./mamba-mixer.ts";
import type { Mamba2Mixer } from "./mamba2-mixer.ts";
import type { Mamba3MixerSizes } from "./mamba3-mixer.ts";
import type { SisaMixerSizes } from "./sisa-mixer.ts";

export const normEpsilon = 1e-5;

/** Base of rotations by position. */
export const ropeBase = 100;

export type Row = readonly number[];
export type Weights = { readonly [name: string]: Row };

export const range = (count: number) => Array.from({ length: count }, (_, index) => index);
export const dot = (a: Row, b: Row) => a.reduce((sum, x, index) => sum + x * (b[index] ?? Number.NaN), 0);
export const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
export const silu = (x: number) => x * sigmoid(x);
const softplus = (x: number) => Math.log1p(Math.exp(x));
export const part = (x: Row, start: number, width: number) => x.slice(start, start + width);
export const get = (x: Row, index: number) => x[index] ?? Number.NaN;

/** W x, for a matrix whose rows follow each other. */
export const times = (matrix: Row | undefined, x: Row) =>
  range((matrix?.length ?? 0) / x.length).map((row) => dot(part(matrix ?? [], row * x.length, x.length), x));

export const rms = (x: Row, weight: Row | undefined) => {
  const root = Math.sqrt(dot(x, x) / x.length + normEpsilon);
  return x.map((value, index) => (value / root) * (weight?.[index] ?? Number.NaN));
};

/** Rows of heads side by side, head by head. */
const headsOf = (x: Row, count: number) => range(count).map((h) => part(x, h * (x.length / count), x.length / count));

/** Pairs of neighbours turned by these angles. */
const turned = (x: Row, angles: Row) =>
  x.map((_, index) => {
    const angle = angles[Math.floor(index / 2)] ?? 0;
    const [a, b] = [get(x, index - (index % 2)), get(x, index - (index % 2) + 1)];
    return index % 2 === 0 ? a * Math.cos(angle) - b * Math.sin(angle) : a * Math.sin(angle) + b * Math.cos(angle);
  });

export function noise(name: string, length: number): number[] {
  return [...new RandomStream(3, name).normal(length)];
}

/** Values of parameters, so large that every one matters. */
export function weightsOf(layer: Layer): Weights {
  return Object.fromEntries(
    Object.entries(layer.parameters).map(([name, { shape }]) => [
      name,
      noise(
        name,
        shape.reduce((a, b) => a * b, 1),
      ).map((value) => value * 0.5 + (/norm|mimo/.test(name) ? 1 : 0)),
    ]),
  );
}

/**
 * Source: state-spaces/mamba, mamba3.py: h_t = a h + (1 - l) dt a k' v'^T + l dt k v^T, with k' and v' of the token before
 * and sums over ranks; y = h q + D v.
 */
export function mamba3(sizes: Required<Omit<Mamba3MixerSizes, "width">>) {
  const { stateWidth: N, innerWidth, headWidth: P, groups, rank, decay, outputNorm } = sizes;
  const heads = innerWidth / P;
  const sets = N * groups * rank;
  const f = decay === "softplus" ? softplus : (x: number) => (x >= 0 ? 1 + x : 1 / (1 - x));
  return (w: Weights, tokens: readonly Row[]) => {
    const theta = range(heads).map(() => range(N / 4).map(() => 0));
    const states = range(heads).map(() => range(N).map(() => range(P).map(() => 0)));
    let before: { k: Row; v: Row }[][] = [];
    return tokens.map((token) => {
      const all = times(w["mamba.in_proj.weight"], token);
      let start = 0;
      const next = (width: number) => {
        start += width;
        return part(all, start - width, width);
      };
      const [z, x, b, c] = [next(innerWidth), next(innerWidth), next(sets), next(sets)];
      const [dtIn, aIn, trapIn, angles] = [next(heads), next(heads), next(heads), next(N / 4)];
      const now: { k: Row; v: Row }[][] = [];
      const y = range(heads).map((h) => {
        const dt = softplus(get(dtIn, h) + get(w["mamba.dt_bias"] ?? [], h));
        const a = Math.exp(-Math.max(f(get(aIn, h)), 1e-4) * dt);
        const l = sigmoid(get(trapIn, h));
        theta[h] = (theta[h] ?? []).map((angle, i) => angle + Math.tanh(get(angles, i)) * Math.PI * dt);
        const group = Math.floor(h / (heads / groups));
        const vector = (from: Row, name: "B" | "C", r: number) => {
          const normed = rms(part(from, (r * groups + group) * N, N), w[`mamba.${name}_norm.weight`]);
          const bias = part(w[`mamba.${name}_bias`] ?? [], (h * rank + r) * N, N);
          return turned(
            normed.map((value, n) => value + get(bias, n)),
            theta[h] ?? [],
          );
        };
        const ranked = (name: string, r: number) =>
          rank === 1 ? range(P).map(() => 1) : part(w[name] ?? [], (h * rank + r) * P, P);
        const writes = range(rank).map((r) => {
          const lift = ranked("mamba.mimo_x", r);
          return { k: vector(b, "B", r), v: part(x, h * P, P).map((value, p) => value * get(lift, p)) };
        });
        now.push(writes);
        const outer = (pairs: readonly { k: Row; v: Row }[] | undefined, n: number, p: number) =>
          (pairs ?? []).reduce((sum, { k, v }) => sum + get(k, n) * get(v, p), 0);
        states[h] = (states[h] ?? []).map((row, n) =>
          row.map((s, p) => a * s + (1 - l) * dt * a * outer(before[h], n, p) + l * dt * outer(writes, n, p)),
        );
        const total = range(P).map(() => 0);
        for (const [r, { v }] of writes.entries()) {
          const q = vector(c, "C", r);
          const read = range(P).map(
            (p) =>
              dot(
                (states[h] ?? []).map((row) => get(row, p)),
                q,
              ) +
              get(w["mamba.D"] ?? [], h) * get(v, p),
          );
          const normed = outputNorm ? rms(read, part(w["mamba.norm.weight"] ?? [], h * P, P)) : read;
          const [gate, out] = [ranked("mamba.mimo_z", r), ranked("mamba.mimo_o", r)];
          for (const p of range(P)) {
            total[p] = get(total, p) + get(normed, p) * silu(get(z, h * P + p) * get(gate, p)) * get(out, p);
          }
        }
        return total;
      });
      before = now;
      return y.flat();
    });
  };
}

/** Source: Lin et al. 2025, arXiv:2503.02130; windows and sinks as in Hymba, arXiv:2411.13676. */
export function attends(sizes: AttentionMixerSizes, metaTokens: number) {
  const {
    width,
    heads,
    keyValueHeads = heads,
    headWidth: E = width / heads,
    keyWidth: D = E,
    positions = "rope",
    window = Number.POSITIVE_INFINITY,
  } = sizes;
  return (w: Weights, tokens: readonly Row[]) => {
    const normed = (x: Row, name: string, count: number) =>
      sizes.queryKeyNorm
        ? headsOf(x, count).flatMap((row, h) => rms(row, part(w[name] ?? [], h * row.length, row.length)))
        : x;
    const rotated = (x: Row, t: number) =>
      positions === "rope"
        ? turned(
            x,
            range(D / 2).map((i) => t * ropeBase ** (-i / (D / 2))),
          )
        : x;
    const shifted = (matrix: string, gate: string, headWidth: number) => {
      const plain = tokens.map((token) => times(w[matrix], token));
      if (!sizes.shift) return plain;
      return plain.map((row, t) => {
        const share = times(w[gate], tokens[t] ?? []).map(sigmoid);
        return row.map((value, i) => {
          const s = get(share, Math.floor(i / headWidth));
          return s * (plain[t - 1]?.[i] ?? 0) + (1 - s) * value;
        });
      });
    };
    const q = tokens.map((token) => normed(times(w["W_Q.weight"], token), "q_norm.weight", heads));
    const k = shifted("W_K.weight", "k_shift.weight", D).map((row) => normed(row, "k_norm.weight", keyValueHeads));
    const v = shifted("W_V.weight", "v_shift.weight", E);
    const logGates = tokens.map((token) =>
      sizes.forget
        ? times(w["W_F.weight"], token).map((x, h) => Math.log(sigmoid(x + get(w["W_F.bias"] ?? [], h))))
        : [],
    );
    return tokens.map((token, i) => {
      const y = range(heads).flatMap((h) => {
        const shared = Math.floor(h / (heads / keyValueHeads));
        const scores = range(i + 1).map((j) => {
          if (j <= i - window && j >= metaTokens) return Number.NEGATIVE_INFINITY;
          const forgotten = range(i - j).reduce((sum, n) => sum + (logGates[j + 1 + n]?.[h] ?? 0), 0);
          const penalty = positions === "alibi" ? (j - i) * 2 ** ((-8 * (h + 1)) / heads) : 0;
          const [query, key] = [rotated(part(q[i] ?? [], h * D, D), i), rotated(part(k[j] ?? [], shared * D, D), j)];
          return dot(query, key) / Math.sqrt(D) + forgotten + penalty;
        });
        const powers = scores.map((score) => Math.exp(score));
        const total = powers.reduce((a, b) => a + b, 0);
        const value = range(E).map(
          (e) =>
            dot(
              powers,
              range(i + 1).map((j) => get(v[j] ?? [], shared * E + e)),
            ) / total,
        );
        if (!sizes.outputGate) return value;
        const gate = times(w["out_gate.weight"], token);
        return rms(value, part(w["out_norm.weight"] ?? [], h * E, E)).map((x, e) => x * sigmoid(get(gate, h * E + e)));
      });
      return y;
    });
  };
}

/**
 * Source: arXiv:2606.02332: score_ij = q_i . k_j / sqrt(D) + lambda alpha_{j+1} ... alpha_i (R(Phi_i) c_i) . (R(Phi_j) b_j),
 * and what that paper leaves open. Sigmoids as in arXiv:2409.04431, less the logarithm of how many keys there are.
 */
export function sisa(sizes: Omit<SisaMixerSizes, "form" | "normEpsilon">) {
  const { width, heads, stateWidth: S, positions = "rope", decay = "learned", rotation = true } = sizes;
  const D = width / heads;
  return (w: Weights, tokens: readonly Row[]) => {
    const project = (name: string) => tokens.map((token) => headsOf(times(w[name], token), heads));
    const placed = (name: string) =>
      project(name).map((rows, t) => {
        const angles = range(D / 2).map((i) => (positions === "rope" ? t * ropeBase ** (-i / (D / 2)) : 0));
        return rows.map((row) => turned(row, angles));
      });
    const phases = range(heads).map(() => range(S / 2).map(() => 0));
    const speeds = project("theta_proj.weight");
    const phi = tokens.map((_, t) =>
      range(heads).map((h) => {
        phases[h] = (phases[h] ?? []).map((angle, n) => angle + (rotation ? get(speeds[t]?.[h] ?? [], n) : 0));
        return phases[h];
      }),
    );
    const rotated = (name: "B" | "C") =>
      project(`W_${name}.weight`).map((rows, t) =>
        rows.map((row, h) => turned(sizes.normalize ? rms(row, w[`${name}_norm.weight`]) : row, phi[t]?.[h] ?? [])),
      );
    const [q, k, v] = [placed("W_Q.weight"), placed("W_K.weight"), project("W_V.weight")];
    const [b, c] = [rotated("B"), rotated("C")];
    const logDecays = tokens.map((token) =>
      range(heads).map((h) => {
        if (decay === "none") return 0;
        const bias = get(w["alpha_proj.bias"] ?? [], h);
        return -softplus(bias + (decay === "learned" ? get(times(w["alpha_proj.weight"], token), h) : 0));
      }),
    );
    return tokens.map((_, i) =>
      range(heads).flatMap((h) => {
        const scores = range(i + 1).map((j) => {
          const decayed = Math.exp(range(i - j).reduce((sum, n) => sum + (logDecays[j + 1 + n]?.[h] ?? 0), 0));
          const lambda = softplus(get(w.lambda_raw ?? [], h));
          const content = dot(q[i]?.[h] ?? [], k[j]?.[h] ?? []) / Math.sqrt(D);
          return content + lambda * decayed * dot(c[i]?.[h] ?? [], b[j]?.[h] ?? []);
        });
        const powers = scores.map(Math.exp);
        const total = powers.reduce((one, other) => one + other, 0);
        const weights =
          sizes.weights === "sigmoid"
            ? scores.map((score) => sigmoid(score - Math.log(i + 1)))
            : powers.map((power) => power / total);
        return range(D).map((d) =>
          dot(
            weights,
            range(i + 1).map((j) => get(v[j]?.[h] ?? [], d)),
          ),
        );
      }),
    );
  };
}

/** Source: Dao & Gu 2024, arXiv:2405.21060: h_t = exp(dt A) h_{t-1} + dt x B^T, y = h C + D x. Norms are of groups. */
export function mamba2({
  innerWidth,
  headWidth: P,
  stateWidth: N,
  groups,
  convWidth,
  outputNorm,
}: Omit<Mamba2Mixer["sizes"], "width" | "heads">) {
  const heads = innerWidth / P;
  return (w: Weights, tokens: readonly Row[]) => {
    const projected = tokens.map((token) => times(w["mamba.in_proj.weight"], token));
    const channels = innerWidth + 2 * groups * N;
    const states = range(heads).map(() => range(P).map(() => range(N).map(() => 0)));
    const normed = (x: Row) => {
      const weights = headsOf(w["mamba.norm.weight"] ?? [], groups);
      return headsOf(x, groups).flatMap((row, group) => rms(row, weights[group]));
    };
    return projected.map((row, t) => {
      const z = part(row, 0, innerWidth);
      const mixed = range(channels).map((channel) => {
        const taps = part(w["mamba.conv1d.weight"] ?? [], channel * convWidth, convWidth);
        const seen = range(convWidth).map((i) => projected[t - convWidth + 1 + i]?.[innerWidth + channel] ?? 0);
        return silu(dot(taps, seen) + get(w["mamba.conv1d.bias"] ?? [], channel));
      });
      const x = part(mixed, 0, innerWidth);
      const y = range(heads).flatMap((h) => {
        const group = Math.floor(h / (heads / groups));
        const b = part(mixed, innerWidth + group * N, N);
        const c = part(mixed, innerWidth + (groups + group) * N, N);
        const dt = softplus(get(row, innerWidth + channels + h) + get(w["mamba.dt_bias"] ?? [], h));
        const a = Math.exp(-dt * Math.exp(get(w["mamba.A_log"] ?? [], h)));
        return range(P).map((p) => {
          const input = get(x, h * P + p);
          const state = (states[h]?.[p] ?? []).map((s, n) => a * s + dt * input * get(b, n));
          const head = states[h];
          if (head) head[p] = state;
          return dot(state, c) + get(w["mamba.D"] ?? [], h) * input;
        });
      });
      const gated = (values: Row) => values.map((value, i) => value * silu(get(z, i)));
      if (outputNorm === "before-gate") return gated(normed(y));
      return outputNorm === "none" ? gated(y) : normed(gated(y));
    });
  };
}

/**
 * Source: Gu & Dao 2023, arXiv:2312.00752, with the norms of Jamba, arXiv:2403.19887:
 * h_t = exp(dt A) h_{t-1} + dt B x of every channel, y = C . h + D x.
 */
export function mamba({ innerWidth: I, stateWidth: N, stepWidth, convWidth }: Omit<MambaMixer["sizes"], "width">) {
  return (w: Weights, tokens: readonly Row[]) => {
    const projected = tokens.map((token) => times(w["mamba.in_proj.weight"], token));
    const states = range(I).map(() => range(N).map(() => 0));
    return projected.map((row, t) => {
      const x = range(I).map((channel) => {
        const taps = part(w["mamba.conv1d.weight"] ?? [], channel * convWidth, convWidth);
        const seen = range(convWidth).map((i) => projected[t - convWidth + 1 + i]?.[channel] ?? 0);
        return silu(dot(taps, seen) + get(w["mamba.conv1d.bias"] ?? [], channel));
      });
      const all = times(w["mamba.x_proj.weight"], x);
      const step = rms(part(all, 0, stepWidth), w["mamba.dt_layernorm.weight"]);
      const b = rms(part(all, stepWidth, N), w["mamba.b_layernorm.weight"]);
      const c = rms(part(all, stepWidth + N, N), w["mamba.c_layernorm.weight"]);
      const dts = times(w["mamba.dt_proj.weight"], step);
      return x.map((input, channel) => {
        const dt = softplus(get(dts, channel) + get(w["mamba.dt_proj.bias"] ?? [], channel));
        const state = (states[channel] ?? []).map((s, n) => {
          const a = Math.exp(-dt * Math.exp(get(w["mamba.A_log"] ?? [], channel * N + n)));
          return a * s + dt * get(b, n) * input;
        });
        states[channel] = state;
        const y = dot(c, state) + get(w["mamba.D"] ?? [], channel) * input;
        return y * silu(get(row, I + channel));
      });
    });
  };
}
