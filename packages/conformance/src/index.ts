// What backends use: the suite of tests, and the cases and modes it is made of.

export * from "./case.ts";
export { allCases } from "./cases/index.ts";
export { type FuzzOptions, fuzz, fuzzSeeds } from "./modes/fuzz.ts";
export { counts, type Mode, markdownTable, modes, type Row, rowsTable, type Status } from "./result.ts";
export { type Part, type RunOptions, runCase, runCases } from "./run-case.ts";
export { conformanceSuite, definitionSuite, type SuiteOptions } from "./suite.ts";
