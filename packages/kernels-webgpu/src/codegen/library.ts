// Functions of WGSL that kernels call. A shader gets those it names, and what those name.
//
// WGSL may assume that there are no NaN and no infinities, and leaves its own functions a wide margin. So tests look at
// bits, infinities are made at run time, and what has to be right to a few units in the last place is spelt out here.

const functions: Readonly<Record<string, string>> = {
  // A private variable, since a constant that is infinite is an error.
  infinity: `var<private> infinityBits: u32 = 0x7f800000u;
fn infinity() -> f32 { return bitcast<f32>(infinityBits); }`,
  notANumber: `var<private> notANumberBits: u32 = 0x7fc00000u;
fn notANumber() -> f32 { return bitcast<f32>(notANumberBits); }`,
  isFinite: "fn isFinite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }",
  isNaN: "fn isNaN(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }",
  // Through bits, since compilers leave out a conversion there and back. What is too large is infinite.
  to_half: `fn to_half(x: f32) -> f32 {
let near = unpack2x16float(pack2x16float(vec2f(x, 0.0))).x;
return select(near, select(-infinity(), infinity(), x > 0.0), abs(x) >= 65520.0);
}`,
  four_halves: "fn four_halves(x: vec2u) -> vec4f { return vec4f(unpack2x16float(x.x), unpack2x16float(x.y)); }",
  // e^x = 2^n e^r with |r| <= ln 2 / 2; ln 2 in two parts. Below -87 the result is flushed to zero, above 88.7 infinite.
  exact_exp: `fn exact_exp(x: f32) -> f32 {
let bounded = clamp(x, -104.0, 89.0);
let n = round(bounded * 1.4426950408889634);
let r = fma(n, -1.42860682030941723e-6, fma(n, -0.693145751953125, bounded));
let p = fma(fma(fma(fma(fma(fma(1.3981999e-3, r, 8.3333333e-3), r, 4.1666667e-2), r, 0.16666667), r, 0.5), r, 1.0), r, 1.0);
let half = i32(n) / 2;
let scaled = p * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(i32(n) - half + 127) << 23u);
return select(select(scaled, infinity(), x > 88.72284), x, isNaN(x));
}`,
  // log x = e ln 2 + log m with m in [sqrt 1/2, sqrt 2); log m = 2 atanh((m - 1) / (m + 1)).
  exact_log: `fn exact_log(x: f32) -> f32 {
let tiny = x < 1.17549435e-38;
let bits = bitcast<u32>(select(x, x * 8388608.0, tiny));
let shift = (bits - 0x3f3504f3u) & 0xff800000u;
let e = f32(bitcast<i32>(shift) / 8388608) - select(0.0, 23.0, tiny);
let m = bitcast<f32>(bits - shift);
let value = fma(e, 0.693145751953125, log_near_one(m - 1.0) + e * 1.42860682030941723e-6);
let special = select(select(value, x, x > 3.4028234e38), -infinity(), x == 0.0);
return select(special, notANumber(), x < 0.0 || isNaN(x));
}`,
  log_near_one: `fn log_near_one(f: f32) -> f32 {
let s = f / (2.0 + f);
let z = s * s;
let p = z * fma(fma(fma(0.22222222, z, 0.28571429), z, 0.4), z, 0.66666667);
let h = 0.5 * f * f;
return f - (h - s * (h + p));
}`,
  // Near 0 the rounding of 1 + x is taken back; far from it there is none to speak of.
  exact_log1p: `fn exact_log1p(x: f32) -> f32 {
return select(exact_log(1.0 + x), log_near_one(x), abs(x) < 0.25);
}`,
  // Angles up to some thousand turns: pi / 2 in three parts. Polynomials of Cephes' sinf and cosf.
  reduce_angle: `struct Angle { r: f32, quadrant: i32 }
fn reduce_angle(x: f32) -> Angle {
let n = round(x * 0.6366197723675814);
return Angle(fma(n, -5.390302953e-15, fma(n, -7.5497894159e-8, fma(n, -1.5707962513, x))), i32(n) & 3);
}
fn sine_part(r: f32) -> f32 {
let z = r * r;
return fma(r * z, fma(fma(-1.9515295891e-4, z, 8.3321608736e-3), z, -1.6666654611e-1), r);
}
fn cosine_part(r: f32) -> f32 {
let z = r * r;
let p = fma(fma(2.443315711809948e-5, z, -1.388731625493765e-3), z, 4.166664568298827e-2);
return fma(z * z, p, fma(z, -0.5, 1.0));
}`,
  exact_sin: `fn exact_sin(x: f32) -> f32 {
let a = reduce_angle(x);
let value = select(sine_part(a.r), cosine_part(a.r), (a.quadrant & 1) == 1);
return select(select(value, -value, a.quadrant >= 2), notANumber(), !isFinite(x));
}`,
  exact_cos: `fn exact_cos(x: f32) -> f32 {
let a = reduce_angle(x);
let value = select(cosine_part(a.r), sine_part(a.r), (a.quadrant & 1) == 1);
return select(select(value, -value, a.quadrant == 1 || a.quadrant == 2), notANumber(), !isFinite(x));
}`,
  // An angle in radians as 2^-32 turns. 1 / 2 pi and the angle are cut into parts whose products are exact.
  turns_of: `fn whole_turns(p: f32) -> u32 { return bitcast<u32>(i32((p - round(p)) * 4294967296.0)); }
fn turns_of(x: f32) -> u32 {
let high = bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
let low = x - high;
return whole_turns(high * 0.15917968750) + whole_turns(high * -2.4743378162384033e-5) + whole_turns(low * 0.15917968750)
+ whole_turns(low * -2.4743378162384033e-5) + whole_turns(x * -1.0299424e-9);
}`,
  exact_tanh: `fn exact_tanh(x: f32) -> f32 {
let z = x * x;
let p = fma(fma(fma(fma(-0.0088632356, z, 0.021869488), z, -0.053968254), z, 0.13333333), z, -0.33333333);
let small = fma(x * z, p, x);
let e = exact_exp(2.0 * min(abs(x), 20.0));
let large = sign(x) * (1.0 - 2.0 / (e + 1.0));
return select(select(large, small, abs(x) < 0.3), x, isNaN(x));
}`,
  sigmoid: `fn sigmoid(x: f32) -> f32 {
let e = exact_exp(-abs(x));
return select(1.0, e, x < 0.0) / (1.0 + e);
}`,
  softplus: "fn softplus(x: f32) -> f32 { return max(x, 0.0) + exact_log1p(exact_exp(-abs(x))); }",
  floor_div: `fn floor_div(a: i32, b: i32) -> i32 {
let quotient = a / b;
return select(quotient, quotient - 1, quotient * b != a && (a < 0) != (b < 0));
}`,
  maximum: "fn maximum(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, isNaN(b)), a, isNaN(a)); }",
  minimum: "fn minimum(a: f32, b: f32) -> f32 { return select(select(min(a, b), b, isNaN(b)), a, isNaN(a)); }",
};

/** The functions that a piece of WGSL calls, those that they call before them. */
export function libraryFor(code: string): string {
  const parts = new Set<string>();
  const addThoseIn = (text: string) => {
    for (const [, name = ""] of text.matchAll(/\b([A-Za-z_]\w*)\s*\(/g)) {
      const found = Object.hasOwn(functions, name) ? functions[name] : undefined;
      if (found === undefined || found === text || parts.has(found)) continue;
      addThoseIn(found);
      parts.add(found);
    }
  };
  addThoseIn(code);
  return [...parts].join("\n");
}
