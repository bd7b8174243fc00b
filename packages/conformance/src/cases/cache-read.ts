import { cacheRead, i32 } from "@sisa/core";
import { casesOf, given, testCase } from "../case.ts";
import { inOrder, pageTable, pooled, shortPages } from "./pages.ts";

const exact = { exact: true };

/** `cacheRead` is a function, spelt with other operations. */
export const cacheReadCases = casesOf("cacheRead", [
  testCase({
    name: "pages",
    inputs: { cache: pooled(shortPages, [2]), pages: pageTable(shortPages), length: given(i32(2), shortPages.lengths) },
    program: ({ cache, pages, length }) => cacheRead(cache, pages, length),
    tolerance: exact,
    expected: ({ cache }) => ({ value: inOrder(cache, shortPages).data }),
    gradients: [],
  }),
  testCase({
    name: "unused-rows",
    inputs: {
      cache: pooled(shortPages, [], { unused: Number.NaN }),
      pages: pageTable(shortPages),
      length: given(i32(2), shortPages.lengths),
    },
    program: ({ cache, pages, length }) => cacheRead(cache, pages, length),
    tolerance: exact,
    expected: ({ cache }) => ({ value: inOrder(cache, shortPages).data }),
    ieee: true,
  }),
]);
