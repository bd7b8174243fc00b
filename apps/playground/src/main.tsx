import "./style.css";
import { render } from "preact";
import { App } from "./app.tsx";

const root = document.getElementById("app");
if (root === null) throw new Error('index.html: expected an element with the id "app"');
render(<App />, root);
