// A file as a row of the list. Whatever comes from a file or the service enters as text only.

import { contextOf } from "./answers.js";
import { titleOf } from "./files.js";
import * as regions from "./regions.js";
import * as words from "./words.js";

const template = document.getElementById("row");

/** Draws a file anew; one with several answers has a row for each. */
export function draw(item, enlarge) {
  const rows = (item.entries ?? [undefined]).map((entry) => row(item, entry, enlarge));
  const [first, ...others] = item.rows ?? [];
  if (first?.isConnected) {
    // The focus stays where it was, as far as the new row has the same control.
    const focus = focusOf(first);
    first.replaceWith(...rows);
    others.forEach((other) => other.remove());
    if (focus) rows[0].querySelector(focus)?.focus();
  }
  item.rows = rows;
}

function focusOf(node) {
  if (!node.contains(document.activeElement)) return null;
  if (document.activeElement.closest(".thumb")) return ".thumb button";
  return document.activeElement.matches(".heat") ? ".heat" : "summary";
}

function row(item, entry, enlarge) {
  const node = template.content.cloneNode(true).firstElementChild;
  const part = (name) => node.querySelector(`.${name}`);
  part("name").textContent = titleOf(item, entry);
  part("thumb").append(thumb(item, entry, enlarge));
  // A file that was tried again in vain has an error, and what was answered before.
  const error = entry ? entry.error : item.error;
  if (error) drawError(node, part, item, error);
  else if (entry) drawEntry(node, part, item, entry, enlarge);
  else {
    node.dataset.state = item.state;
    part("decision").textContent = item.state === "sending" ? "Sending" : "Waiting";
  }
  return node;
}

const KINDS = { dicom: "DICOM", deep: "16-bit PNG", zip: "ZIP", remains: "File", unknown: "File" };

function thumb(item, entry, enlarge) {
  if (!item.url) {
    const kind = element("span", KINDS[item.kind] ?? "");
    kind.className = "kind";
    return kind;
  }
  const image = element("img");
  image.alt = "";
  // Let go anywhere on the page, it would come in as a file.
  image.draggable = false;
  image.loading = "lazy";
  image.decoding = "async";
  const button = element("button");
  button.type = "button";
  button.setAttribute("aria-label", `Enlarge ${titleOf(item, entry)}`);
  button.append(image);
  const region = regions.overlay(entry);
  if (region) {
    button.append(region);
    image.addEventListener("load", () => {
      if (!regions.fits(image, entry)) region.remove();
    });
  }
  button.addEventListener("click", () => enlarge(item, entry));
  image.addEventListener("error", () => {
    const kind = element("span", "No preview");
    kind.className = "kind";
    button.replaceWith(kind);
  });
  image.src = item.url;
  return button;
}

function drawError(node, part, item, error) {
  node.dataset.state = "failed";
  part("decision").textContent = "No result";
  part("label").textContent = words.fileError(item.file, error);
  const code = [error.status, error.code].filter((value) => value !== undefined).join(" ");
  const remarks = [];
  if (error.detail) remarks.push(sentence(error.detail));
  if (error.code === "interrupted") {
    remarks.push("It may be larger than the service accepts, or have changed on the disk.");
  }
  list(part("remarks"), remarks);
  const mark = element("li");
  mark.append("Code ", element("code", code || "none"));
  part("remarks").append(mark);
  part("remarks").hidden = false;
}

function drawEntry(node, part, item, entry, enlarge) {
  const context = contextOf(item, entry);
  node.dataset.state = "done";
  node.dataset.decision = entry.decision ?? "";
  part("decision").textContent =
    entry.decision === undefined ? "No decision" : words.decision(entry.decision);
  // Of an image that the model cannot judge, nothing is shown as if it had.
  const judged = entry.in_distribution !== false;
  if (judged && entry.label !== undefined) {
    part("label").append("Most likely class: ", element("strong", words.label(entry.label)));
  }
  list(part("remarks"), remarks(entry, context.tumor_classes));
  if (entry.in_distribution === false) {
    const warning =
      "Unlike the images that the model was made for, not upright, or in colour: do not rely on this result.";
    const first = element("li");
    first.append(element("strong", warning));
    part("remarks").prepend(first);
    part("remarks").hidden = false;
  }
  if (context.model) {
    part("remarks").append(versionOf(context));
    part("remarks").hidden = false;
  }
  if (judged && typeof entry.tumor_probability === "number") {
    part("score-value").textContent = words.share(entry.tumor_probability);
    if (isCalibrated(entry)) part("score-note").textContent = "(calibrated)";
    part("score").hidden = false;
  }
  for (const [name, value] of Object.entries((judged && entry.probabilities) || {})) {
    part("classes").append(bar(name, value, name === entry.label));
    part("classes").hidden = false;
  }
  // A version that knows regions has a heat map as well; of a zip file it is not known which slice.
  if (judged && entry.region !== undefined && item.kind !== "zip") {
    // What has no preview is seen there alone.
    const what = item.url ? "Heat map" : "Slice with heat map";
    part("heat").hidden = false;
    part("heat").textContent = what;
    part("heat").setAttribute("aria-label", `${what} of ${titleOf(item, entry)}`);
    part("heat").addEventListener("click", () => enlarge(item, entry, { heat: true }));
  }
  const facts = details(item, entry);
  for (const [term, text] of facts) part("more").querySelector("dl").append(fact(term, text));
  part("more").hidden = !facts.length;
  part("more").querySelector("summary").setAttribute("aria-label", `Details of ${titleOf(item, entry)}`);
}

/** Whether an answer is of a version that is calibrated: only such a one has prediction sets. */
export const isCalibrated = (entry) => entry.prediction_set !== undefined;

/** Which version gave a result; seen where this is not the same for all, or another one serves now. */
export function versionOf(...contexts) {
  const versions = new Set(contexts.map(({ model }) => model?.version).filter(Boolean));
  const line = element("li", `Model version ${[...versions].join(" and ")}`);
  line.className = "version";
  return line;
}

function remarks(entry, tumors) {
  const found = [];
  const referral = words.referral(entry);
  if (referral) found.push(referral);
  if (entry.in_distribution === false) return found;
  if (entry.region?.box) found.push(regions.describe(entry.region));
  else if (entry.region === null) found.push("No region found");
  if (Array.isArray(entry.prediction_set)) {
    const names = entry.prediction_set.map(words.label).join(", ");
    found.push(`Prediction set: ${names || "none of the classes"}`);
  }
  const contradiction = words.contradiction(entry, tumors);
  if (contradiction) found.push(contradiction);
  return found;
}

function details(item, entry) {
  const facts = [];
  const { model, timing_ms: timing, round_trip_ms: elapsed, request_id, files } = contextOf(
    item,
    entry,
  );
  if (timing) {
    const parts = [
      ["decoding", timing.decode],
      ["waiting", timing.queue],
      ["inference", timing.inference],
      ["total", timing.total],
    ].filter(([, value]) => typeof value === "number");
    const text = parts.map(([name, value]) => `${name} ${words.milliseconds(value)}`).join(", ");
    const whole = files > 1 ? ` (request with ${files} files; the longest of each step)` : "";
    facts.push(["Time in the service", text + whole]);
  }
  facts.push(["Time with transfer", words.milliseconds(elapsed)]);
  if (entry.in_distribution === false && entry.probabilities) {
    const outputs = Object.entries(entry.probabilities)
      .map(([name, value]) => `${words.label(name)} ${words.share(value)}`)
      .join(", ");
    facts.push(["Outputs, not to be relied on", outputs]);
  }
  if (entry.in_distribution === true) facts.push(["Like the training images", "yes"]);
  if (entry.in_distribution !== false && entry.region?.box) {
    const score = typeof entry.region.score === "number" ? `, score ${entry.region.score}` : "";
    facts.push(["Region (box in pixels)", entry.region.box.join(", ") + score]);
  }
  if (model) {
    const runtime = words.runtime(model.runtime);
    facts.push(["Model", `${model.name}, version ${model.version}, ${runtime} on ${model.device}`]);
  }
  facts.push(["File size", words.bytes(item.file.size)]);
  if (entry.dicom) {
    facts.push(["SOP instance", entry.dicom.sop_instance_uid]);
    facts.push(["Series", entry.dicom.series_instance_uid]);
    facts.push(["Frame", entry.dicom.frame]);
  }
  if (request_id) facts.push(["Request", request_id]);
  return facts.filter(([, text]) => text !== undefined && text !== null && text !== "");
}

function bar(name, value, first) {
  const line = element("div");
  if (first) line.className = "first";
  const track = element("span");
  track.className = "track";
  const fill = element("span");
  // Through the object model: the content security policy refuses style attributes.
  fill.style.width = `${Math.min(Math.max(value, 0), 1) * 100}%`;
  track.append(fill);
  track.setAttribute("aria-hidden", "true");
  const number = element("dd");
  number.append(track, element("span", words.share(value)));
  line.append(element("dt", words.label(name)), number);
  return line;
}

function fact(term, text) {
  const line = element("div");
  line.append(element("dt", term), element("dd", String(text)));
  return line;
}

/** Fills a list with texts; an empty one is hidden. */
export function list(node, texts) {
  node.replaceChildren(...texts.map((text) => element("li", text)));
  node.hidden = !texts.length;
}

function sentence(text) {
  const clean = String(text);
  return clean.charAt(0).toUpperCase() + clean.slice(1) + (/[.!?]$/.test(clean) ? "" : ".");
}

export function element(name, text) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  return node;
}
