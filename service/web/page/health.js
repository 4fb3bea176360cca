// What serves, and whether it is ready: asked again as long as the page is looked at.

import * as words from "./words.js";

const READY_SECONDS = 20;
const UNREADY_SECONDS = 3;
/** A service that is silent for longer is as good as gone; a browser alone would wait for minutes. */
const SILENT_SECONDS = 8;

const place = (name) => document.getElementById(name);
let timer;
let asked = 0;
let changed = () => {};

/** The model that serves, in words, as far as it is known. */
export let serving;

/** Calls this whenever another model serves. */
export const onChange = (call) => {
  changed = call;
};

/** Asks now and from now on. */
export async function watch() {
  clearTimeout(timer);
  if (document.hidden) return;
  const turn = ++asked;
  const report = await ask();
  // Asked again meanwhile, which may be answered first.
  if (turn !== asked) return;
  show(report);
  clearTimeout(timer);
  timer = setTimeout(watch, (report.status === "ready" ? READY_SECONDS : UNREADY_SECONDS) * 1000);
}

document.addEventListener("visibilitychange", watch);

async function ask() {
  try {
    const signal = AbortSignal.timeout(SILENT_SECONDS * 1000);
    const response = await fetch("health", { cache: "no-store", signal });
    const report = await response.json();
    return typeof report.status === "string" ? report : { status: "unavailable", ...report };
  } catch {
    return { status: "unreachable", reason: "no answer from the service" };
  }
}

function show({ status, model, code, reason, operating_point: point }) {
  set("state", words.state(status));
  place("state").dataset.state = status;
  set("reason", [reason, code && `(${code})`].filter(Boolean).join(" "));
  place("reason").hidden = status === "ready" || !reason;
  // While it cannot be reached, the last one known stays: the results below are its.
  if (status === "unreachable") return;
  set("model-name", model?.name ?? "–");
  set("model-version", model?.version ?? "–");
  set("model-runtime", model ? words.runtime(model.runtime) : "–");
  set("model-device", model?.device ?? "–");
  showOperation(point);
  const name = words.model(model);
  if (name === serving) return;
  serving = name;
  changed();
}

/** Which decision a tumour probability leads to, here and now. */
function showOperation(point) {
  place("operation").hidden = !point;
  if (!point) return;
  const lines = words.operation(point).map(([range, text]) => {
    const line = document.createElement("div");
    const [term, meaning] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = range;
    meaning.textContent = text;
    line.append(term, meaning);
    return line;
  });
  place("operation-ranges").replaceChildren(...lines);
  place("operation-note").textContent = words.sensitivity(point);
}

function set(name, text) {
  // A live region speaks whenever its text is set, even to the same.
  if (place(name).textContent !== String(text)) place(name).textContent = text;
}
