// What this backend makes of a graph before it is planned: fewer operations, each of which does the work of several.

import { type Graph, simplify } from "@sisa/core";
import { joinNorms } from "./join-decoding.ts";
import { joinOptimizers } from "./join-optimizers.ts";
import { joinStates } from "./join-states.ts";
import { joinSums } from "./join-sums.ts";
import { mergeProducts } from "./merge-products.ts";

/** @param options.leastRows as in mergeProducts */
export function fuse(graph: Graph, options: { readonly leastRows?: number } = {}): Graph {
  return simplify(joinNorms(joinOptimizers(joinStates(joinSums(simplify(mergeProducts(graph, options)))))));
}
