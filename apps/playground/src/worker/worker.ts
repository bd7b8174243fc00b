import { expose } from "comlink";
import { ModelSession } from "./model-session.ts";

expose(new ModelSession());
