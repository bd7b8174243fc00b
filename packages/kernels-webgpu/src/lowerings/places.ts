// Operations that move elements and compute nothing.

import { type Dim, type Node, sizeOf } from "@sisa/core";
import { count, type Place } from "../codegen/index-space.ts";
import { view } from "../lowering.ts";

export const zeroOf = (node: Node) => {
  const dtype = Object.values(node.outputs)[0]?.dtype;
  return dtype === "bool" ? "false" : dtype === "int32" ? "0" : "0.0f";
};

const known = (size: unknown) => sizeOf(size as Dim);
const shifted = (place: Place, axis: number, rule: (coordinate: string) => string) =>
  place.coordinates.map((coordinate, index) => (index === axis ? rule(coordinate) : coordinate));

export const broadcastTo = view(({ place, sizes, read }) => read(place.broadcastFrom(sizes())));

export const iota = view(({ place }) => `i32(${place.flat})`);

export const transpose = view(({ place, sizes, read, attributes }) => {
  const permutation = attributes.permutation as readonly number[];
  const coordinates = sizes().map((_, axis) => place.coordinates[permutation.indexOf(axis)] ?? "0u");
  return read(place.moved(sizes(), coordinates));
});

export const slice = view(({ place, sizes, read, scope, attributes }) => {
  const { axis, start } = attributes as { axis: number; start: Dim };
  const from = known(start);
  const coordinates = shifted(place, axis, (x) => (from === 0 ? x : scope.define(`${x} + ${from}u`)));
  return read(place.moved(sizes(), coordinates));
});

export const pad = view(({ node, place, sizes, read, scope, attributes }) => {
  const { axis, before } = attributes as { axis: number; before: Dim };
  const from = known(before);
  const size = sizes()[axis] ?? 0;
  if (count(sizes()) === 0) return zeroOf(node);
  const here = place.coordinates[axis] ?? "0u";
  const inside = scope.define(`${here} >= ${from}u && ${here} < ${from + size}u`);
  const nearest = scope.define(`clamp(${here}, ${from}u, ${from + size - 1}u) - ${from}u`);
  const value = read(
    place.moved(
      sizes(),
      shifted(place, axis, () => nearest),
    ),
  );
  return `select(${zeroOf(node)}, ${value}, ${inside})`;
});

/** The axis cut into parts; beyond its end there are zeros. */
export const chunk = view(({ node, place, sizes, read, scope, attributes }) => {
  const { axis, size } = attributes as { axis: number; size: number };
  const length = sizes()[axis] ?? 0;
  if (count(sizes()) === 0) return zeroOf(node);
  if (length % size === 0) return read(place.reshaped(sizes()));
  const [part = "0u", within = "0u"] = place.coordinates.slice(axis, axis + 2);
  const here = scope.define(`${part} * ${size}u + ${within}`);
  const nearest = scope.define(`min(${here}, ${length - 1}u)`);
  const value = read(place.moved(sizes(), place.coordinates.toSpliced(axis, 2, nearest)));
  return `select(${zeroOf(node)}, ${value}, ${scope.define(`${here} < ${length}u`)})`;
});

export const unchunk = view(({ place, sizes, read, scope, attributes }) => {
  const { axis } = attributes as { axis: number };
  const size = sizes()[axis + 1] ?? 1;
  if (count(sizes()) === count(place.sizes)) return read(place.reshaped(sizes()));
  const here = place.coordinates[axis] ?? "0u";
  const parts = [scope.define(`${here} / ${size}u`), scope.define(`${here} % ${size}u`)];
  return read(place.moved(sizes(), place.coordinates.toSpliced(axis, 1, ...parts)));
});

/** Each part is read at the nearest place that it has; what lies outside of it is not chosen. */
export const concat = view(({ node, place, sizes, read, scope, attributes }) => {
  const { axis } = attributes as { axis: number };
  const here = place.coordinates[axis] ?? "0u";
  let start = 0;
  let result: string | undefined;
  for (const name of Object.keys(node.inputs)) {
    const size = sizes(name)[axis] ?? 0;
    const from = start;
    start += size;
    if (count(sizes(name)) === 0) continue;
    const nearest = scope.define(`clamp(${here}, ${from}u, ${from + size - 1}u) - ${from}u`);
    const value = read(
      place.moved(
        sizes(name),
        shifted(place, axis, () => nearest),
      ),
      name,
    );
    result = result === undefined ? value : scope.define(`select(${result}, ${value}, ${here} >= ${from}u)`);
  }
  return result ?? zeroOf(node);
});
