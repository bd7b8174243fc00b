#!/usr/bin/env node
// The `sisa` program. A file of its own, so that there is something to link before the package is built.
import "../dist/sisa.js";
