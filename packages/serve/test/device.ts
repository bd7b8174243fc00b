// The reference, saying that it takes bound graphs only and has memory of its own, as GPU backends do.
import { type Backend, reference } from "@sisa/core";

export function asDevice({ pagedCaches = false }: { readonly pagedCaches?: boolean } = {}): Backend {
  return new Proxy(reference(), {
    get(target, name) {
      if (name === "limits") return { ...target.limits, symbolicDims: false, hostMemory: false, pagedCaches };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
